package node

import (
	"runtime"
	"syscall"
)

// backgroundNice is the niceness of a thread that trains: about a tenth of the weight of others, so that who waits for a
// prediction gets the processor at once, and training a share in any case.
const backgroundNice = 10

// inBackground runs f on a thread of its own, which the kernel lets wait behind all others of this machine, and returns
// when f has. A thread may become nicer and not less nice again, so it ends with f.
func inBackground(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()                                                          // never unlocked: the thread ends with the goroutine
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), backgroundNice) // where it may not, training goes on all the same
		f()
	}()
	<-done
}
