//go:build race

package model

// raceDetector: under it a sync.Pool forgets at random what it is given, so predictions allocate.
const raceDetector = true
