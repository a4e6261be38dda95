//go:build !amd64

package kernel

func tested() []*path { return available() }

func peakOf(*path) (loop func(n int), width int) { return nil, 0 }
