package simulate

import (
	"errors"
	"fmt"
	"strings"

	"choir.example/fedavg"
	"choir.example/model"
)

// A run diverges in a round of which no model comes that learns: training on a node, or the server's step, leaves the numbers that
// there are, or the loss on the test set explodes. The round counts nowhere: the result is that of the rounds before.

// roundError is why there is no model of a round, and none of any later one.
type roundError struct {
	round int
	err   error
}

func (e *roundError) Error() string { return fmt.Sprintf("round %d: %v", e.round, e.err) }
func (e *roundError) Unwrap() error { return e.err }

// lostLoss is a cross entropy, in nat, that no model has which learns: it gives what is true a probability of e^-10000.
const lostLoss = 1e4

// learning refuses a model whose loss exploded.
func learning(m Measured) error {
	if !(m.Loss < lostLoss) {
		return fmt.Errorf("the loss on the test set is %.4g: %w", m.Loss, model.ErrDiverged)
	}
	return nil
}

// divergence is what a result says of the error that its run ended with; empty if it did not diverge.
func divergence(err error) string {
	if !errors.Is(err, model.ErrDiverged) {
		return ""
	}
	if r := (*roundError)(nil); errors.As(err, &r) && errors.Is(r, model.ErrDiverged) {
		return r.Error() // and not what else went wrong
	}
	return err.Error()
}

// Err is why the run diverged, nil if it did not: a model.ErrDiverged, and a fedavg.ErrServerDiverged if it was the server, like the
// error of Run. The result may have been read from a file.
func (r *Result) Err() error {
	if r.Diverged == "" {
		return nil
	}
	return toldError(r.Diverged)
}

// told is a divergence of which there is the text alone; nil for a text of something else.
func told(text string) error {
	if !strings.HasSuffix(text, model.ErrDiverged.Error()) && !strings.HasSuffix(text, fedavg.ErrServerDiverged.Error()) {
		return nil
	}
	return toldError(text)
}

// toldError is what told made.
type toldError string

func (e toldError) Error() string { return string(e) }

// Is implements errors.Is. What a server's step came to ends with the words for it.
func (e toldError) Is(target error) bool {
	return target == model.ErrDiverged || target == fedavg.ErrServerDiverged && strings.HasSuffix(string(e), fedavg.ErrServerDiverged.Error())
}
