package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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

// What gRPC puts around an answer is left out, and the network's silence is told from a coordinator's no.
func TestPlainWords(t *testing.T) {
	enrol := fmt.Errorf("enrol n1: %w", errors.Join(fmt.Errorf("127.0.0.1:1: %w", status.Error(codes.AlreadyExists, "enrol: node n1 exists"))))
	if got, want := plain(enrol), "enrol n1: 127.0.0.1:1: enrol: node n1 exists"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	var log bytes.Buffer
	l, _, err := logKeys{"json", "info"}.start(&log)
	if err != nil {
		t.Fatal(err)
	}
	l.Warn("not enrolled", "error", enrol)
	if !strings.Contains(log.String(), `"error":"enrol n1: 127.0.0.1:1: enrol: node n1 exists"`) {
		t.Errorf("logged %s", log.String())
	}
	for message, want := range map[string]string{
		"bundle: 1 of 3 coordinators signed":                                          "the coordinators cannot do that now: bundle: 1 of 3 coordinators signed",
		`a: transport: Error while dialing: dial tcp a: connect: connection refused`:  "no coordinator answers: a: transport: ",
		"a: transport: Error while dialing: dial tcp; b: no leader is known":          "the coordinators cannot do that now: ",
		`a: no leader confirms it: ask b: "transport: Error while dialing: dial tcp"`: "the coordinators cannot do that now: a: no leader",
		`a: "transport: Error while dialing: dial tcp a: connect: refused"`:           "no coordinator answers: a: ",
	} {
		err := said(status.Error(codes.Unavailable, message))
		if hint := (*hinted)(nil); !errors.As(err, &hint) || !strings.HasPrefix(err.Error(), want) || hint.hint == "" {
			t.Errorf("%q becomes %v, want %q", message, err, want)
		}
	}
}
