package model

import (
	"cmp"
	"fmt"
	"slices"
)

// travelling are the optimisers that Travel knows.
var travelling = []string{"", "sgd", "gd", "momentum", "nesterov"}

// Travel is how far a training by cfg moves a parameter whose gradient is always 1: the sum of the learning rates of its
// steps, of which momentum makes more. With pull above 0 every step also goes back by pull times the distance so far, as
// FedProx's term has it. Over cfg.Rate it is the ‖a‖₁ of Wang et al. 2020 (FedNova, §4.1 and Table 1), which also covers
// schedules here. Weight decay and clipping are not in it. steps are what Training says, after all cfg.Epochs. An optimiser
// that scales each parameter by itself has no such number: that is an error, which names those that do.
func (cfg *TrainConfig) Travel(steps int, pull float64) (float64, error) {
	o := cfg.Optimiser
	if !slices.Contains(travelling, o.Kind) {
		return 0, fmt.Errorf("optimiser %s: how far its steps go depends on the gradients, want one of sgd, gd, momentum, nesterov", o.Kind)
	}
	keep := 0.
	if o.Kind == "momentum" || o.Kind == "nesterov" {
		keep = cmp.Or(o.Momentum, .9)
	}
	perEpoch := max(steps/max(cfg.Epochs, 1), 1)
	distance, velocity := 0., 0.
	for step := range steps {
		gradient := 1 - pull*distance
		velocity = keep*velocity + gradient
		move := velocity
		if o.Kind == "nesterov" {
			move = gradient + keep*velocity
		}
		distance += cfg.Rate * cfg.Schedule.at(step, steps, perEpoch) * move
	}
	return distance, nil
}
