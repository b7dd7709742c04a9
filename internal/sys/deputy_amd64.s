#include "textflag.h"

// System calls of Linux on x86-64, see syscall(2): number in AX, arguments in DI,
// SI, DX, R10, R8, R9, result in AX; the kernel changes CX and R11.

#define RT_SIGPROCMASK 14
#define EXIT 60
#define CLONE3 435
#define SIG_SETMASK 2

// func deputyClone(clone *cloneArgs, size uintptr, ops *op, n uintptr, mask *[2]uint64) int64
//
// The child has the stack pointer of the parent and must not use the stack.
TEXT ·deputyClone(SB), NOSPLIT|NOFRAME, $0-48
	MOVQ	ops+16(FP), R12
	MOVQ	n+24(FP), R13

	MOVQ	mask+32(FP), SI
	LEAQ	8(SI), DX
	MOVQ	$SIG_SETMASK, DI
	MOVQ	$8, R10
	MOVQ	$RT_SIGPROCMASK, AX
	SYSCALL

	MOVQ	clone+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	$CLONE3, AX
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	MOVQ	AX, ret+40(FP)

	MOVQ	mask+32(FP), SI
	ADDQ	$8, SI
	XORQ	DX, DX
	MOVQ	$SIG_SETMASK, DI
	MOVQ	$8, R10
	MOVQ	$RT_SIGPROCMASK, AX
	SYSCALL
	RET

child:
	TESTQ	R13, R13
	JEQ	end
	MOVQ	0(R12), AX
	MOVQ	8(R12), DI
	MOVQ	16(R12), SI
	MOVQ	24(R12), DX
	MOVQ	32(R12), R10
	MOVQ	40(R12), R8
	MOVQ	48(R12), R9
	SYSCALL
	MOVQ	56(R12), R14
	MOVQ	AX, 0(R14)
	TESTQ	AX, AX
	JPL	next
	CMPQ	64(R12), $0
	JNE	end
next:
	ADDQ	$72, R12
	DECQ	R13
	JMP	child

end:
	XORQ	DI, DI
	MOVQ	$EXIT, AX
	SYSCALL
	INT	$3
