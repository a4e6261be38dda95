package main

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

// What takes long is told every two seconds with its name, what does not is not, and after the end nothing is.
func TestStages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		s := newStages(&b, "mine")
		s.begin("reading data")
		time.Sleep(time.Second)
		s.begin("dealing examples")
		time.Sleep(3500 * time.Millisecond)
		s.begin("training")
		s.end()
		s.end()
		time.Sleep(time.Minute)
		if got, want := b.String(), "mine: dealing examples, 1s\nmine: dealing examples, 3s\n"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// The last round has no time left, and less than a second is said as that.
func TestMeterOfRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		m := newMeter(&b, "mine")
		time.Sleep(2500 * time.Millisecond)
		m.rounds(1, 1, 3, "accuracy 0.5")
		time.Sleep(2500 * time.Millisecond)
		m.rounds(1, 20, 21, "accuracy 0.6")
		time.Sleep(2500 * time.Millisecond)
		m.rounds(1, 21, 21, "accuracy 0.7")
		want := "mine: round 1 of 3, accuracy 0.5; 5s left\nmine: round 20 of 21, accuracy 0.6; under 1s left\nmine: round 21 of 21, accuracy 0.7\n"
		if got := b.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}
