package jobspec

import (
	"choir.example/fedavg"
	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"
)

// Job is a job's specification, parsed: what its nodes train by and its coordinators combine by.
type Job struct {
	*fedavg.Algorithm
	Schema *data.Schema // of the rows; nil where examples are tensors
}

// Builder makes an algorithm of a specification: Algorithm or, in experiments, one of parts that no specification can name.
type Builder func(spec *choirv1.JobSpec) (*fedavg.Algorithm, error)

// Parse reads a specification. A nil build is Algorithm.
func Parse(spec *choirv1.JobSpec, build Builder) (j Job, err error) {
	if build == nil {
		build = Algorithm
	}
	if j.Schema, err = Schema(spec); err != nil {
		return j, err
	}
	j.Algorithm, err = build(spec)
	return j, err
}

// Classes is how many the label has, 1 where it is a boolean. Tensors are not evaluated.
func (j Job) Classes() int {
	if j.Schema == nil {
		return 1
	}
	return j.Schema.Classes()
}
