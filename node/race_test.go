//go:build race

package node

const raceEnabled = true // the race detector needs memory and time of its own
