package jobspec

import (
	"errors"
	"testing"

	"choir.example/fedavg"
	choirv1 "choir.example/proto/choir/v1"
)

// An algorithm of one's own takes the place of the specification's; the schema stays its own.
func TestParse(t *testing.T) {
	rows := &choirv1.JobSpec{Name: "job", Schema: []byte(schema), Hidden: []uint32{7}, Batch: 4, LearningRate: .25, Range: 2, WeightCap: 9}
	j, err := Parse(rows, nil)
	if err != nil || j.Batch != 4 || j.Schema == nil || j.Classes() != 1 {
		t.Errorf("%+v, %v", j, err)
	}
	own := &fedavg.Algorithm{Batch: 99}
	build := func(*choirv1.JobSpec) (*fedavg.Algorithm, error) { return own, nil }
	if j, err = Parse(rows, build); err != nil || j.Algorithm != own || j.Schema == nil {
		t.Errorf("%+v, %v", j, err)
	}
	if j, err = Parse(tensors(t, fedavg.Settings{}), build); err != nil || j.Schema != nil || j.Classes() != 1 {
		t.Errorf("tensors: %+v, %v", j, err)
	}
	none := errors.New("none")
	if _, err = Parse(rows, func(*choirv1.JobSpec) (*fedavg.Algorithm, error) { return nil, none }); err != none {
		t.Errorf("%v, want %v", err, none)
	}
}
