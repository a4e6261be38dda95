package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"choir.example/model"
)

// follower tells people of a training that takes more than two seconds: steps as a meter shows them, and after an epoch
// how the validation part is answered.
type follower struct {
	set       *trainSet
	talk      io.Writer
	predictor *model.Predictor // reads the parameters that are trained
	epoch     int              // steps in one
	epochs    int
	start     time.Time
	said      time.Time // when the validation part was measured last
	done      int       // steps
	shown     *meter
}

// step is called before each step, in the goroutine that trains.
func (f *follower) step() {
	if f.done%f.epoch == 0 {
		f.finish()
		f.tell()
		f.shown = newMeter(f.talk, fmt.Sprintf("epoch %d of %d", f.done/f.epoch+1, f.epochs))
	}
	f.shown.count(int64(f.done%f.epoch), int64(f.epoch), "steps")
	f.done++
}

// finish takes away what the meter shows.
func (f *follower) finish() {
	if f.shown != nil {
		f.shown.finish()
	}
}

// tell measures the validation part, if the last time was long enough ago. That outputs are not finite is no error here:
// the training finds it out by itself.
func (f *follower) tell() {
	if f.said.IsZero() {
		f.said = f.start
	}
	if f.done == 0 || time.Since(f.said) < meterAfter {
		return
	}
	figures := []string{"outputs that are not finite"}
	if m, err := f.set.measure(f.predictor, &f.set.validation); err == nil {
		figures = figures[:0]
		for _, x := range m {
			figures = append(figures, fmt.Sprintf("%s %.4f", x.name, x.value))
		}
	}
	f.said = time.Now()
	fmt.Fprintf(f.talk, "epoch %d of %d, %.0f s: validation %s\n", f.done/f.epoch, f.epochs, time.Since(f.start).Seconds(), strings.Join(figures, ", "))
}
