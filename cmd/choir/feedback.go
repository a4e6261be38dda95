package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// feedbackCommand is `choir feedback`.
type feedbackCommand struct {
	serverFlag
	outputFlag
	ID      string   `arg:"" help:"The prediction's id."`
	Outcome string   `arg:"" help:"What really happened: yes or no."`
	Values  []string `arg:"" optional:"" help:"KEY=VALUE for each input, for a prediction that the node no longer remembers." placeholder:"KEY=VALUE"`
	Model   string   `help:"The model that predicted. Default: the only one the node serves." placeholder:"NAME"`
}

// Help is what --help explains.
func (feedbackCommand) Help() string {
	return `The true outcome becomes a labelled example on this node, once for each prediction, and takes part in the next round. The node
remembers predictions for 24 hours, the last 100,000 of them, until it is started again; for others send the inputs along.

Example: choir feedback 2c09d30a2378d684816958b10c68cc7a yes`
}

// Run sends the outcome.
func (c *feedbackCommand) Run(ctx context.Context, t *terminal) error {
	outcome, ok := map[string]bool{"yes": true, "true": true, "1": true, "no": false, "false": false, "0": false}[strings.ToLower(c.Outcome)]
	if !ok {
		return &usageError{fmt.Sprintf("the outcome is %q, want yes or no", c.Outcome), "choir feedback ID yes"}
	}
	s, err := c.server()
	if err != nil {
		return err
	}
	name, err := c.model(ctx, t)
	if err != nil {
		return err
	}
	path := "/v2/models/" + url.PathEscape(name)
	body := map[string]any{"prediction_id": c.ID, "outcome": outcome}
	if len(c.Values) > 0 {
		inputs, err := s.inputs(ctx, path, c.Values)
		if err != nil {
			return err
		}
		body["inputs"] = inputs
	}
	var taken struct {
		ID       string `json:"prediction_id"`
		Model    string `json:"model"`
		Examples int    `json:"examples"`
	}
	if err := s.call(ctx, http.MethodPost, path+"/feedback", body, &taken); err != nil {
		return err
	}
	if c.json() {
		return printJSON(t.out, taken)
	}
	_, err = fmt.Fprintf(t.out, "prediction %s of model %s: %d example kept\n", taken.ID, taken.Model, taken.Examples)
	return err
}

// model is the one named, or the only one that the node serves.
func (c *feedbackCommand) model(ctx context.Context, t *terminal) (string, error) {
	if c.Model != "" {
		return c.Model, nil
	}
	file, err := c.file()
	if err != nil {
		return "", err
	}
	status, err := statusOf(ctx, t, file)
	if err != nil {
		return "", err
	}
	switch len(status.Models) {
	case 0:
		return "", &hinted{errors.New("the node serves no model"), "choir node status shows what it does; name the model with --model"}
	case 1:
		return status.Models[0].Name, nil
	}
	return "", &usageError{"the node serves several models", "name the one that predicted with --model"}
}
