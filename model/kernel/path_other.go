//go:build !amd64

package kernel

// available lists the paths of this processor, the fastest last.
func available() []*path { return []*path{portable} }
