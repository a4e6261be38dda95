package main

import (
	"fmt"

	"choir.example/model"
)

// scheduleFlags say how the learning rate changes.
type scheduleFlags struct {
	Schedule   string  `help:"How the rate changes: ${enum}." enum:"constant,step,cosine" default:"constant"`
	StepEpochs int     `help:"Under --schedule step, epochs between two changes." placeholder:"N"`
	StepFactor float64 `help:"Under --schedule step, what the rate is multiplied by, more than 0 and less than 1." placeholder:"FACTOR"`
	Warmup     int     `help:"Steps over which the rate rises evenly, under any schedule. Default: none." placeholder:"STEPS"`
}

// schedule is what the flags say.
func (f scheduleFlags) schedule() model.Schedule {
	return model.Schedule{Kind: f.Schedule, Every: f.StepEpochs, Factor: f.StepFactor, Warmup: f.Warmup}
}

// check refuses wrong usage.
func (f scheduleFlags) check() error {
	const cure, such = "add --schedule step, or leave it out", "such as --step-epochs 5 --step-factor 0.5"
	switch {
	case f.Schedule != "step" && f.StepEpochs != 0:
		return &usageError{fmt.Sprintf("--step-epochs goes with --schedule step, not with %s", f.Schedule), cure}
	case f.Schedule != "step" && f.StepFactor != 0:
		return &usageError{fmt.Sprintf("--step-factor goes with --schedule step, not with %s", f.Schedule), cure}
	case f.Schedule == "step" && (f.StepEpochs < 1 || f.StepEpochs > maxEpochs):
		return &usageError{fmt.Sprintf("--step-epochs is %d, want 1 to %d with --schedule step", f.StepEpochs, maxEpochs), such}
	case f.Schedule == "step" && !(f.StepFactor > 0 && f.StepFactor < 1):
		return &usageError{fmt.Sprintf("--step-factor is %v, want more than 0 and less than 1 with --schedule step", f.StepFactor), such}
	case f.Warmup < 0:
		return &usageError{fmt.Sprintf("--warmup is %d steps, want at least 0", f.Warmup), ""}
	}
	return nil
}

// checkSteps refuses a warm-up that does not end before the training does.
func (f scheduleFlags) checkSteps(all int) error {
	if f.Warmup > 0 && f.Warmup >= all {
		return &usageError{fmt.Sprintf("--warmup is %d steps, and the training has %d", f.Warmup, all), "take fewer, or more --epochs"}
	}
	return nil
}
