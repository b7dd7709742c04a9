#include "textflag.h"

// siginfoPipe is where siginfoHandler writes. What a signal does belongs to the
// process, and so does this.
GLOBL siginfoPipe<>(SB), NOPTR, $8

// void handler(int sig, siginfo_t *info, void *context): write(siginfoPipe, info, 128).
// The frame of the signal holds all registers.
TEXT ·siginfoHandler(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ siginfoPipe<>(SB), DI
	MOVQ $128, DX
	MOVQ $1, AX // SYS_write
	SYSCALL
	RET

// runtimeHandler is the handler of the Go runtime.
GLOBL runtimeHandler<>(SB), NOPTR, $8

TEXT ·faultHandler(SB), NOSPLIT|NOFRAME, $0-0
	MOVL 8(SI), AX // si_code
	CMPL AX, $0
	JLE  sent
	MOVQ runtimeHandler<>(SB), AX
	JMP  AX
sent:
	JMP ·siginfoHandler(SB)

// func setFaultHandler(handler uintptr)
TEXT ·setFaultHandler(SB), NOSPLIT, $0-8
	MOVQ handler+0(FP), AX
	MOVQ AX, runtimeHandler<>(SB)
	RET

// func faultHandlerAt() uint64
TEXT ·faultHandlerAt(SB), NOSPLIT, $0-8
	LEAQ ·faultHandler(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func siginfoHandlerAt() uint64
TEXT ·siginfoHandlerAt(SB), NOSPLIT, $0-8
	LEAQ ·siginfoHandler(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func setSiginfoPipe(fd uintptr)
TEXT ·setSiginfoPipe(SB), NOSPLIT, $0-8
	MOVQ fd+0(FP), AX
	MOVQ AX, siginfoPipe<>(SB)
	RET
