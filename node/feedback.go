package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"choir.example/model"
	"choir.example/model/data"
)

// Feedback is the true outcome of a prediction. It becomes an example to train on.
type Feedback struct {
	PredictionID string   `json:"prediction_id"`    // as in the reply to the prediction
	Outcome      any      `json:"outcome"`          // of the label: a boolean, 0 or 1, or text such as "yes"; an array for several rows
	Inputs       []Tensor `json:"inputs,omitempty"` // by the schema's names, for a prediction that is no longer remembered
	Model        string   `json:"model,omitempty"`  // the model's name; wanted with inputs only
}

// FeedbackTaken says what became of it.
type FeedbackTaken struct {
	PredictionID string `json:"prediction_id"` // as in the feedback
	Model        string `json:"model"`         // the name of the model that predicted
	Examples     int    `json:"examples"`      // training rows made of it
}

// ErrUnknownPrediction says that a prediction is not remembered.
var ErrUnknownPrediction = errors.New("the prediction is not remembered: its id is wrong, or it is more than 24 hours or 100,000 predictions old, or the node was started again since; send its inputs along")

// keepOutcome adds what somebody on this machine says of a prediction to the data that the node trains on, once.
func (s *server) keepOutcome(f Feedback) (*FeedbackTaken, error) {
	now := s.deps.Now()
	id, err := hex.DecodeString(f.PredictionID)
	if err != nil || len(id) != 16 {
		return nil, fmt.Errorf("prediction_id: %q, want the 32 hexadecimal digits that came with the prediction", f.PredictionID)
	}
	m, rows, err := s.answeredRows(f, [16]byte(id), now)
	if err != nil {
		return nil, err
	}
	if own := s.store.Schema(); own == nil || own.Digest() != m.Schema.Digest() {
		return nil, fmt.Errorf("model %s is for schema %s, which this node's data do not have", m.Name, m.Schema.Name)
	}
	outcomes, several := f.Outcome.([]any)
	if !several {
		outcomes = []any{f.Outcome}
	}
	if len(outcomes) != len(rows) {
		return nil, fmt.Errorf("outcome: %d given for a prediction of %d rows", len(outcomes), len(rows))
	}
	examples := make([]data.Row, len(rows))
	for i, row := range rows { // all are checked before one is kept
		if examples[i], err = m.Schema.WithLabel(row, outcomes[i]); err != nil {
			return nil, fmt.Errorf("outcome: %w", err)
		}
	}
	for i, row := range examples {
		key := f.PredictionID
		if i > 0 {
			key = fmt.Sprintf("%s/%d", f.PredictionID, i+1)
		}
		if err := s.store.AddExample(key, row, now); err != nil {
			return nil, err
		}
	}
	return &FeedbackTaken{PredictionID: f.PredictionID, Model: m.Name, Examples: len(rows)}, nil
}

// answeredRows finds the rows that a prediction was made of: remembered, or sent along.
func (s *server) answeredRows(f Feedback, id [16]byte, now time.Time) (*model.Model, []data.Row, error) {
	p := s.memory.find(id, now)
	if p != nil && p.rows != nil && (f.Model == "" || f.Model == p.model.Name) {
		return p.model, p.rows, nil
	}
	if p != nil && p.rows == nil && len(f.Inputs) == 0 {
		return nil, nil, fmt.Errorf("prediction %s was made from the tensor \"features\"; send its inputs along, by their names", f.PredictionID)
	}
	if len(f.Inputs) == 0 {
		return nil, nil, fmt.Errorf("prediction %s: %w", f.PredictionID, ErrUnknownPrediction)
	}
	m, ok := s.models()[f.Model]
	if !ok {
		return nil, nil, fmt.Errorf("model %q is not here: %w", f.Model, errNoModel)
	}
	rows, err := rowsOf(m.model, f.Inputs)
	return m.model, rows, err
}

var errNoModel = errors.New("name one that is served")

// feedback is POST /v2/models/NAME/feedback.
func (s *server) feedback(w http.ResponseWriter, r *http.Request, m *served) {
	if !s.token.opens(r) {
		refuse(w, http.StatusUnauthorized, errToken)
		return
	}
	jsonBody(w, r, func(body []byte) {
		var f Feedback
		if err := decodeStrict(body, &f); err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		f.Model = m.model.Name
		taken, err := s.keepOutcome(f)
		if err != nil {
			refuse(w, feedbackCode(err), err)
			return
		}
		reply(w, http.StatusOK, taken)
	})
}

// feedbackCode is the HTTP code of an error of keepOutcome.
func feedbackCode(err error) int {
	switch {
	case errors.Is(err, ErrUnknownPrediction), errors.Is(err, errNoModel):
		return http.StatusNotFound
	case errors.Is(err, ErrAnswered):
		return http.StatusConflict
	}
	return http.StatusBadRequest
}

// takeFeedback is POST /v1/feedback on the control socket.
func (n *Node) takeFeedback(r *http.Request) (any, error) {
	if n.serve == nil {
		return nil, errors.New("this node serves no predictions")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return nil, err
	}
	var f Feedback
	if err := decodeStrict(body, &f); err != nil {
		return nil, err
	}
	return n.serve.keepOutcome(f)
}

// Feedback tells the node the true outcome of a prediction.
func (c *Controller) Feedback(ctx context.Context, f Feedback) (*FeedbackTaken, error) {
	body, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	taken := &FeedbackTaken{}
	return taken, c.call(ctx, http.MethodPost, "/v1/feedback", bytes.NewReader(body), taken)
}
