package kernel

import "golang.org/x/sys/cpu"

// tested are the paths of this processor, and what it would be without VNNI.
func tested() []*path {
	paths := available()
	if cpu.X86.HasAVX512VNNI && paths[len(paths)-1].name == "avx512" {
		without := avx512(false)
		without.name = "avx512 without VNNI"
		paths = append(paths, without)
	}
	return paths
}

// peakOf is the loop that measures what a core can do at most with the vectors of the path.
func peakOf(p *path) (loop func(n int), width int) {
	switch p.name {
	case "avx512":
		return peakAVX512, 16
	case "avx2":
		return peakAVX2, 8
	}
	return nil, 0
}
