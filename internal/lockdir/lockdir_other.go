//go:build !unix

package lockdir

// Lock locks nothing where there are no locks of Unix.
func Lock(path string) (unlock func(), err error) { return func() {}, nil }
