package state_test

import (
	"strings"
	"testing"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"
)

// What two fields make impossible together is refused, and what is just possible is not.
func TestCheckSpecHoldsFieldsTogether(t *testing.T) {
	const wide = `{"name":"wide","unit":"row","label":"y","columns":[{"name":"y","kind":"boolean"},{"name":"x","kind":"numeric","min":0,"max":1}]}`
	for _, c := range []struct {
		name, want string
		change     func(s *choirv1.JobSpec)
	}{
		{"clip of one step", "", func(s *choirv1.JobSpec) { s.Range, s.Clip = 1<<19, 0.0625 }},
		{"clip below one step", "job purchase: clip is 0.0624, want at least one step of the grid, range / 2^23 = 0.0625, or 0 for none",
			func(s *choirv1.JobSpec) { s.Range, s.Clip = 1<<19, 0.0624 }},
		{"tiny clip", "clip is 5e-324", func(s *choirv1.JobSpec) { s.Clip = 5e-324 }},
		{"no clip", "", func(s *choirv1.JobSpec) { s.Range, s.Clip = 1e6, 0 }},
		{"largest batch", "", func(s *choirv1.JobSpec) { s.Schema, s.Hidden, s.Batch = []byte(wide), []uint32{1 << 10}, 1<<16 }},
		{"batch too large for the width", "job purchase: batch: batch of 65536 rows of up to 1025 values, at most 2^26 values",
			func(s *choirv1.JobSpec) { s.Schema, s.Hidden, s.Batch = []byte(wide), []uint32{1<<10 + 1}, 1<<16 }},
		{"nothing for a student to learn from", "job purchase: student_rows is 0, want 1 to 4194304", func(s *choirv1.JobSpec) { s.StudentRows = 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := usual()
			s.Name, s.Model, s.Hidden, s.MinimumCohort = "purchase", "buyer", []uint32{8}, 2
			s.StudentRows = 16
			c.change(s)
			err := state.CheckSpec(s)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
