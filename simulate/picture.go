package simulate

import (
	"fmt"

	"choir.example/simulate/partition"
)

// Picture is who holds what in the run of an experiment that cfg describes, without running it. What is set aside, for the
// server or to measure nodes by, nobody holds.
func Picture(x Experiment, cfg RunConfig) (partition.Picture, error) {
	t, err := newTrial(x, cfg)
	if err != nil {
		return partition.Picture{}, fmt.Errorf("experiment %s: %w", x.Name, err)
	}
	return partition.NewPicture(t.parts, t.data.examples()), nil
}
