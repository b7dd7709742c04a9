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
