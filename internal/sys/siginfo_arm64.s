#include "textflag.h"

// siginfoPipe is where siginfoHandler writes. What a signal does belongs to the
// process, and so does this.
GLOBL siginfoPipe<>(SB), NOPTR, $8

// void handler(int sig, siginfo_t *info, void *context): write(siginfoPipe, info, 128).
// The frame of the signal holds all registers.
TEXT ·siginfoHandler(SB), NOSPLIT|NOFRAME, $0-0
	MOVD siginfoPipe<>(SB), R0
	MOVD $128, R2
	MOVD $64, R8 // SYS_write
	SVC
	RET

// runtimeHandler is the handler of the Go runtime.
GLOBL runtimeHandler<>(SB), NOPTR, $8

TEXT ·faultHandler(SB), NOSPLIT|NOFRAME, $0-0
	MOVW 8(R1), R3 // si_code
	CMPW $0, R3
	BLE  sent
	MOVD runtimeHandler<>(SB), R3
	B    (R3)
sent:
	B ·siginfoHandler(SB)

// func setFaultHandler(handler uintptr)
TEXT ·setFaultHandler(SB), NOSPLIT, $0-8
	MOVD handler+0(FP), R0
	MOVD R0, runtimeHandler<>(SB)
	RET

// func faultHandlerAt() uint64
TEXT ·faultHandlerAt(SB), NOSPLIT, $0-8
	MOVD $·faultHandler(SB), R0
	MOVD R0, ret+0(FP)
	RET

// func siginfoHandlerAt() uint64
TEXT ·siginfoHandlerAt(SB), NOSPLIT, $0-8
	MOVD $·siginfoHandler(SB), R0
	MOVD R0, ret+0(FP)
	RET

// func setSiginfoPipe(fd uintptr)
TEXT ·setSiginfoPipe(SB), NOSPLIT, $0-8
	MOVD fd+0(FP), R0
	MOVD R0, siginfoPipe<>(SB)
	RET
