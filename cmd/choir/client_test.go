package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever waits for a coordinator is told after two seconds, then every ten; what is answered sooner needs no word.
func TestPatience(t *testing.T) {
	for wait, lines := range map[time.Duration]int{time.Second: 0, 3 * time.Second: 1, 11 * time.Second: 1, 30 * time.Second: 3} {
		synctest.Test(t, func(t *testing.T) {
			var said strings.Builder
			done := patience(&said, "127.0.0.1:7101")
			time.Sleep(wait) // of the bubble's clock
			done()
			if n := strings.Count(said.String(), "no answer from 127.0.0.1:7101 yet; waiting"); n != lines {
				t.Errorf("%v: %d lines, want %d: %s", wait, n, lines, said.String())
			}
		})
	}
}
