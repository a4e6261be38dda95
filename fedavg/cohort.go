package fedavg

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"choir.example/internal/canon"
)

// Cohort draws goal of the names without replacement: those whose hash under the seed is least. The draw depends on
// the set of names and the seed alone, never on their order. A goal of 0, or one larger than the list, takes all.
// The result is a new slice, sorted by name.
func Cohort(seed uint64, names []string, goal int) []string {
	drawn := slices.Clone(names)
	slices.Sort(drawn)
	if goal <= 0 || goal >= len(drawn) {
		return drawn
	}
	type ticket struct {
		name string
		draw [32]byte
	}
	tickets := make([]ticket, len(drawn))
	for i, name := range drawn {
		var w canon.Writer
		w.String("choir/cohort/v1")
		w.Uint(seed)
		w.String(name)
		tickets[i] = ticket{name, sha256.Sum256(w.Buf)}
	}
	slices.SortFunc(tickets, func(a, b ticket) int { return bytes.Compare(a.draw[:], b.draw[:]) })
	drawn = drawn[:goal]
	for i := range drawn {
		drawn[i] = tickets[i].name
	}
	slices.Sort(drawn)
	return drawn
}
