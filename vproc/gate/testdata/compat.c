/* Makes calls of i386 for a test: as a 32-bit program, and as a 64-bit one that
 * leaves rubbish in the upper halves of the registers. No C library.
 *
 * Descriptor 4 brings seven words (number, five arguments, size of what follows
 * for the buffer) and gets one (the result) and the buffer. An argument of
 * 0xfeed0000 means the buffer. */
typedef unsigned int word;
static word order[7], ret; /* static: below 4 GiB */
static unsigned char buffer[256];

static long call(word nr, unsigned long a, unsigned long b, unsigned long c, unsigned long d, unsigned long e) {
	long ret;
	__asm__ volatile("int $0x80" : "=a"(ret) : "a"((unsigned long)nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory", "cc"
#ifdef __x86_64__
	, "r8", "r9", "r10", "r11"
#endif
	);
	return ret;
}

static unsigned long argument(word v) {
	unsigned long a = v == 0xfeed0000 ? (unsigned long)buffer : v;
#ifdef __x86_64__
	a |= 0xabcdef0100000000;
#endif
	return a;
}

static int all(word nr, void *p, word n) {
	for (word done = 0; done < n;) {
		word r = call(nr, 4, (unsigned long)p + done, n - done, 0, 0);
		if ((int)r <= 0)
			return 0;
		done += r;
	}
	return 1;
}

void _start(void) {
	while (all(3, order, sizeof order) && (order[6] == 0 || all(3, buffer, order[6]))) {
		ret = call(order[0], argument(order[1]), argument(order[2]), argument(order[3]), argument(order[4]), argument(order[5]));
		if (!all(4, &ret, sizeof ret) || !all(4, buffer, sizeof buffer))
			break;
	}
	call(1, 0, 0, 0, 0, 0);
}
