// Package jobspec reads what a job's specification says of training. Coordinators and nodes read it here, so that both
// make one algorithm of it, to the last setting.
//
//	a, err := jobspec.Algorithm(spec)
//	client, err := fedavg.NewClient(a)              // on a node
//	next, err := a.Combine(global, state, sum, …)   // on a coordinator
package jobspec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"
)

// Encode is the one encoding of an algorithm's settings.
func Encode(s *fedavg.Settings) ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode algorithm: %w", err)
	}
	return b, nil
}

// Settings are a job's algorithm as files write it. An encoding other than Encode's is an error.
func Settings(spec *choirv1.JobSpec) (*fedavg.Settings, error) {
	if spec == nil {
		return nil, errors.New("there is no job")
	}
	if len(spec.Algorithm) == 0 {
		return older(spec), nil
	}
	s := &fedavg.Settings{}
	d := json.NewDecoder(bytes.NewReader(spec.Algorithm))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("job %s: algorithm: %w", spec.Name, err)
	}
	if again, err := Encode(s); err != nil || !bytes.Equal(again, spec.Algorithm) {
		return nil, fmt.Errorf("job %s: algorithm is not in canonical form", spec.Name)
	}
	return s, nil
}

// older are the settings of a job whose client knew no other algorithm than federated averaging of a perceptron.
func older(spec *choirv1.JobSpec) *fedavg.Settings {
	return &fedavg.Settings{
		Architecture: model.Architecture{Name: "mlp", Hidden: hidden(spec)},
		Local:        fedavg.LocalSettings{Epochs: int(spec.LocalEpochs), Batch: int(spec.Batch), LearningRate: spec.LearningRate},
		Strategy:     fedavg.StrategySettings{Name: "fedavg", ServerRate: spec.ServerRate},
		Compression:  fedavg.Compression{Range: spec.Range},
		Privacy:      fedavg.Privacy{Clip: spec.Clip},
	}
}

// Algorithm is what a job's nodes train by, and its coordinators combine by.
func Algorithm(spec *choirv1.JobSpec) (*fedavg.Algorithm, error) {
	input, outputs, ids, err := Shape(spec)
	if err != nil {
		return nil, err
	}
	s, err := Settings(spec)
	if err != nil {
		return nil, err
	}
	a, err := s.Algorithm(input, outputs, ids...)
	if err == nil && len(spec.Algorithm) == 0 {
		err = asItStands(a, spec)
	}
	if err == nil {
		a.WeightCap = spec.WeightCap
		err = a.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", spec.Name, err)
	}
	return a, nil
}

// asItStands gives an older job's algorithm its numbers as they are: where a section's zero stands for its usual value,
// theirs is zero.
func asItStands(a *fedavg.Algorithm, spec *choirv1.JobSpec) error {
	switch {
	case spec.Range == 0:
		return errors.New("range is 0, want 1e-06 to 1e+06")
	case len(spec.Hidden) == 0:
		return errors.New("hidden is empty, want 1 to 8 layers")
	}
	a.Local.Epochs, a.Local.Rate, a.Batch = int(spec.LocalEpochs), spec.LearningRate, int(spec.Batch)
	return nil
}

func hidden(spec *choirv1.JobSpec) (widths []int) {
	for _, h := range spec.Hidden {
		widths = append(widths, int(min(h, 1<<30))) // fits an int of 32 bits, and stays out of range
	}
	return widths
}

// Schema is what a job's rows mean, nil if its examples are tensors.
func Schema(spec *choirv1.JobSpec) (*data.Schema, error) {
	if len(spec.Schema) == 0 {
		return nil, nil
	}
	s, err := data.ParseSchema(spec.Schema)
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", spec.Name, err)
	}
	return s, nil
}

// Shape is what one example looks like, how many outputs the model has for it, and how many ids there are of each kind.
func Shape(spec *choirv1.JobSpec) (input []int, outputs int, ids []int, err error) {
	schema, err := Schema(spec)
	switch {
	case err != nil:
		return nil, 0, nil, err
	case schema != nil && spec.Examples != nil:
		return nil, 0, nil, fmt.Errorf("job %s: both a schema and examples, want one", spec.Name)
	case schema != nil:
		return []int{schema.Features()}, schema.Classes(), nil, nil
	case spec.Examples == nil || len(spec.Examples.Input) == 0:
		return nil, 0, nil, fmt.Errorf("job %s: neither a schema nor examples, want one", spec.Name)
	}
	for _, n := range spec.Examples.Input {
		input = append(input, int(min(n, 1<<30)))
	}
	for _, n := range spec.Examples.Ids {
		ids = append(ids, int(min(n, 1<<30)))
	}
	return input, int(min(spec.Examples.Outputs, 1<<30)), ids, nil
}

// Publishes reports whether the job makes a release after its last round.
func Publishes(spec *choirv1.JobSpec) bool { return spec.Publish != PublishNone }

// PublishNone is how a job says that it makes no release.
const PublishNone = "none"
