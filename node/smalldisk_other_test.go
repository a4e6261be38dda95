//go:build !linux

package node

import "errors"

func mountTmpfs(string, int) error { return errors.New("this system has no tmpfs") }
