//go:build race

package simulate

// raceDetector: under it memory and time are its own.
const raceDetector = true
