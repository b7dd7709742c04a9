#include "textflag.h"

// System calls of Linux on arm64, see syscall(2): number in R8, arguments in R0 to
// R5, result in R0; all other registers stay.

#define RT_SIGPROCMASK 135
#define EXIT 93
#define CLONE3 435
#define SIG_SETMASK 2

// func deputyClone(clone *cloneArgs, size uintptr, ops *op, n uintptr, mask *[2]uint64) int64
//
// The child has the stack pointer of the parent and must not use the stack.
TEXT ·deputyClone(SB), NOSPLIT|NOFRAME, $0-48
	MOVD	ops+16(FP), R19
	MOVD	n+24(FP), R20

	MOVD	$SIG_SETMASK, R0
	MOVD	mask+32(FP), R1
	ADD	$8, R1, R2
	MOVD	$8, R3
	MOVD	$RT_SIGPROCMASK, R8
	SVC

	MOVD	clone+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	$CLONE3, R8
	SVC
	CBZ	R0, child
	MOVD	R0, ret+40(FP)

	MOVD	$SIG_SETMASK, R0
	MOVD	mask+32(FP), R1
	ADD	$8, R1, R1
	MOVD	$0, R2
	MOVD	$8, R3
	MOVD	$RT_SIGPROCMASK, R8
	SVC
	RET

child:
	CBZ	R20, end
	MOVD	0(R19), R8
	MOVD	8(R19), R0
	MOVD	16(R19), R1
	MOVD	24(R19), R2
	MOVD	32(R19), R3
	MOVD	40(R19), R4
	MOVD	48(R19), R5
	SVC
	MOVD	56(R19), R21
	MOVD	R0, 0(R21)
	TBZ	$63, R0, next
	MOVD	64(R19), R21
	CBNZ	R21, end
next:
	ADD	$72, R19
	SUB	$1, R20
	B	child

end:
	MOVD	$0, R0
	MOVD	$EXIT, R8
	SVC
	BRK
