// Package lockdir keeps a second process out of a directory that one process writes to.
package lockdir

import "errors"

// ErrTaken is what Lock says of a directory that somebody has locked.
var ErrTaken = errors.New("another process is using it")
