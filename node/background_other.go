//go:build !linux

package node

// inBackground runs f. Threads of one process have no priorities of their own that are portable.
func inBackground(f func()) { f() }
