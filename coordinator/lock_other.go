//go:build !unix

package coordinator

// lockDir leaves it to the raft log, which locks its file.
func lockDir(string) (unlock func(), err error) { return func() {}, nil }
