package main

import "time"

// now is this machine's clock. Everything that goes by the time of day asks here and nowhere else, so that a test can
// build a program whose clock is wrong by replacing this one file.
func now() time.Time { return time.Now() }
