package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// stages says every two seconds what goes on while there is nothing to count yet: on a terminal in one line, which goes away
// in the end, elsewhere in a line each.
type stages struct {
	w    io.Writer
	what string
	over chan struct{}
	gone sync.WaitGroup

	mu    sync.Mutex // guards what follows
	stage string
	begun time.Time
	ended bool
}

// newStages begins; end must be called.
func newStages(w io.Writer, what string) *stages {
	s := &stages{w: w, what: what, over: make(chan struct{})}
	s.gone.Go(s.tell)
	return s
}

// begin names the stage that begins.
func (s *stages) begin(stage string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage, s.begun = stage, time.Now()
}

// end says no more; it returns when nothing more is written, and may be called again.
func (s *stages) end() {
	s.mu.Lock()
	if !s.ended {
		s.ended = true
		close(s.over)
	}
	s.mu.Unlock()
	s.gone.Wait()
}

func (s *stages) tell() {
	again := time.NewTicker(meterAfter)
	defer again.Stop()
	before, after, clear := "", "\n", ""
	if onTerminal(s.w) {
		before, after, clear = "\r\x1b[K", "", "\r\x1b[K"
	}
	told := false
	for {
		select {
		case <-s.over:
			if told {
				fmt.Fprint(s.w, clear)
			}
			return
		case <-again.C:
			s.mu.Lock()
			stage, since := s.stage, time.Since(s.begun).Round(time.Second)
			s.mu.Unlock()
			if stage != "" {
				fmt.Fprintf(s.w, "%s%s: %s, %v%s", before, s.what, stage, since, after)
				told = true
			}
		}
	}
}
