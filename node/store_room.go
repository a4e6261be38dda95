package node

import (
	"fmt"
	"path/filepath"
	"syscall"
)

// reserve is how much of a disk imports leave free, in bytes, if the disk has ten times as much: for the node's own work,
// for removing again what did not fit, and for whatever else the machine does.
const reserve = 64 << 20

// room refuses to write so many bytes when that would eat into the reserve. The error is syscall.ENOSPC, as if the disk
// had said it.
func (s *Store) room(bytes int) error {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(s.path), &disk); err != nil {
		return nil // then writing tells
	}
	block := uint64(disk.Bsize)
	free, keep := disk.Bavail*block, min(uint64(reserve), disk.Blocks*block/10)
	if free < keep+2*uint64(bytes) { // pages are written beside those that they replace
		return fmt.Errorf("the disk is full: %d MB are free, of which %d MB are kept; make room and try again: %w", free>>20, keep>>20, syscall.ENOSPC)
	}
	return nil
}
