#include "textflag.h"

// The whole program of a hollow process. It is copied into an executable of its
// own (Hollow) and uses nothing of Go: no stack checks, no g, no symbols. BX is
// its scratch memory on the stack, R12 the arena (ArenaAddr), R13 the current
// order, R14 how many orders are left, R15 the last result. ArenaSize and the
// offsets are those of hollow.go. What it does is told there.
TEXT ·hollow(SB), NOSPLIT|NOFRAME, $0
	ANDQ $~15, SP
	SUBQ $512, SP
	MOVQ SP, BX
	MOVQ $0x20000000, R12

	// mmap(R12, arenaSize, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_FIXED, 0, 0)
	MOVQ $9, AX
	MOVQ R12, DI
	MOVQ $0x400000, SI
	MOVQ $3, DX
	MOVQ $0x11, R10
	XORQ R8, R8
	XORQ R9, R9
	SYSCALL
	CMPQ AX, R12
	JNE  die

	// rt_sigprocmask(SIG_SETMASK, all, NULL, 8)
	MOVQ $-1, 0(BX)
	MOVQ $14, AX
	MOVQ $2, DI
	MOVQ BX, SI
	XORQ DX, DX
	MOVQ $8, R10
	SYSCALL
	MOVL 8(R12), AX
	MOVL AX, 504(BX) // the number of the orders it has seen
	JMP  finish

loop:
	// rt_sigtimedwait({SIGUSR1, SIGCHLD}, NULL, NULL, 8)
	MOVQ $0x10200, 0(BX)
	MOVQ $128, AX
	MOVQ BX, DI
	XORQ SI, SI
	XORQ DX, DX
	MOVQ $8, R10
	SYSCALL

reap:
	// wait4(-1, BX+8, WNOHANG|WUNTRACED|WCONTINUED|__WALL, BX+16)
	MOVQ $0, 8(BX)
	MOVQ $61, AX
	MOVQ $-1, DI
	LEAQ 8(BX), SI
	MOVQ $0x4000000B, DX
	LEAQ 16(BX), R10
	SYSCALL
	TESTQ AX, AX
	JLE   command

	// write(1, {pid, status, rusage}, 160)
	MOVQ AX, 0(BX)
	MOVQ $1, AX
	MOVQ $1, DI
	MOVQ BX, SI
	MOVQ $160, DX
	SYSCALL
	JMP  reap

command:
	MOVQ $39, AX // getpid()
	SYSCALL
	CMPQ AX, 0(R12)
	JNE  loop
	MOVL 8(R12), AX
	CMPL AX, 504(BX)
	JEQ  loop
	MOVL AX, 504(BX)
	MOVQ 16(R12), R14
	LEAQ 0x1000(R12), R13
	XORQ R15, R15

next:
	TESTQ R14, R14
	JEQ   finish
	MOVQ  72(R13), CX // only after this result
	TESTQ CX, CX
	JEQ   call
	CMPQ  CX, R15
	JNE   advance

call:
	MOVQ 0(R13), AX
	MOVQ 8(R13), DI
	MOVQ 16(R13), SI
	MOVQ 24(R13), DX
	MOVQ 32(R13), R10
	MOVQ 40(R13), R8
	MOVQ 48(R13), R9
	SYSCALL
	MOVQ AX, R15
	MOVQ 56(R13), DX
	TESTQ $1, DX
	JEQ  single

	// It made a process: the new one goes on with the orders, this one is done.
	TESTQ AX, AX
	JEQ  advance
	MOVQ AX, 64(R13)
	JLT  finish
	JMP  loop

single:
	MOVQ AX, 64(R13)
	CMPQ AX, $-4095
	JCS  advance
	TESTQ $2, DX
	JNE  finish

advance:
	ADDQ $80, R13
	DECQ R14
	JMP  next

finish:
	MOVL 504(BX), AX
	MOVL AX, 12(R12)
	// futex(R12+12, FUTEX_WAKE, 1)
	MOVQ $202, AX
	LEAQ 12(R12), DI
	MOVQ $1, SI
	MOVQ $1, DX
	SYSCALL
	JMP  loop

die:
	MOVQ $231, AX // exit_group(127)
	MOVQ $127, DI
	SYSCALL
	BYTE $0x53; BYTE $0x53; BYTE $0x49; BYTE $0x2d; BYTE $0x45; BYTE $0x4e; BYTE $0x44; BYTE $0x0a // "SSI-END\n"

// func hollowText() uintptr
TEXT ·hollowText(SB), NOSPLIT, $0-8
	LEAQ ·hollow(SB), AX
	MOVQ AX, ret+0(FP)
	RET
