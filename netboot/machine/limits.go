package machine

import "time"

const (
	// Window is how long after its boot began a machine may ask for the first
	// time: from the loader to the kernel's first request, on slow firmware.
	Window = 5 * time.Minute
	// CredentialTTL is how long the token of a credential lives.
	CredentialTTL = 60 * time.Second
	// RenewWindow is how long after its first credential a boot gets another one,
	// for the same key, because the first expired before it was used.
	RenewWindow = 5 * time.Minute
	// bootingFor is how long a machine that was sent a kernel counts as booting.
	bootingFor = 10 * time.Minute
	// sameBoot is how long further signs of one boot (DHCP of the firmware, of the
	// loader, each file) do not begin another one, while no key has asked.
	sameBoot = 10 * time.Second

	// MaxPending is how many unknown machines wait for approval; the one that was
	// longest not heard of goes first.
	MaxPending = 256
	// MaxDenied is how many machines are denied.
	MaxDenied = 256
	// MaxList is how many machines are added at once: a transaction holds no more.
	MaxList = 120
	// MaxMACs is how many MAC addresses a machine has.
	MaxMACs = 8
	// MaxArgs is the length limit of extra kernel arguments in bytes.
	MaxArgs = 512
	// MaxBody is the size limit of a request in bytes, see Admission.
	MaxBody = 4 << 10

	maxPhase   = 32       // bytes
	maxText    = 200      // bytes
	maxBootID  = 64       // bytes
	maxReply   = 64 << 10 // bytes of an answer, as a client takes it
	maxListing = 1 << 20  // bytes of a list of machines
	maxWord    = 32       // bytes of a hardware class
	maxName    = 63       // bytes of a name: a label of RFC 1123

	callTimeout = 15 * time.Second // of a call: below the patience of the commands and of machines

	maxTries  = 32   // of a write that others were quicker with
	maxEvents = 512  // machines about which something is to be written down
	maxRates  = 1024 // machines whose rate of requests is watched
)
