package coordinator

import (
	"context"
	"maps"
	"slices"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ListJobs lists all jobs by name, without their rounds.
func (c operatorsService) ListJobs(ctx context.Context, _ *choirv1.ListJobsRequest) (*choirv1.ListJobsReply, error) {
	s := c.replica.State()
	var jobs []*state.Job
	for _, name := range slices.Sorted(maps.Keys(s.Jobs)) {
		jobs = append(jobs, s.Jobs[name])
	}
	reply := &choirv1.ListJobsReply{Jobs: c.statuses(ctx, s, jobs...)}
	for _, j := range reply.Jobs {
		j.Rounds = nil
	}
	return reply, nil
}

// ControlJob does with a job what an operator asks, at a clean point.
func (c operatorsService) ControlJob(ctx context.Context, req *choirv1.ControlJobRequest) (*choirv1.ControlJobReply, error) {
	was, ok := c.replica.State().Jobs[req.Name]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "job %q does not exist", req.Name)
	}
	cmd := &choirv1.Command{Body: &choirv1.Command_ControlJob{ControlJob: &choirv1.ControlJob{
		Job: req.Name, Action: req.Action, Rounds: req.Rounds,
	}}}
	// To continue a job twice would be refused, because it runs: that is what a lost answer looks like.
	goesOn := func(s *state.State) bool {
		return req.Action == state.ActionContinue && was.Ended() && s.Jobs[req.Name].State == state.JobRunning
	}
	if err := c.command(ctx, cmd, goesOn); err != nil {
		return nil, rpcError("control job", err)
	}
	spec, err := c.replica.State().Jobs[req.Name].JobSpec()
	if err != nil {
		return nil, status.Errorf(codes.Internal, "control job: %v", err)
	}
	return &choirv1.ControlJobReply{Rounds: spec.Rounds}, nil
}

// ListReleases lists the releases of all models by name, the newest of each first.
func (c operatorsService) ListReleases(context.Context, *choirv1.ListReleasesRequest) (*choirv1.ListReleasesReply, error) {
	releases := c.replica.State().Releases
	reply := &choirv1.ListReleasesReply{}
	for _, model := range slices.Sorted(maps.Keys(releases)) {
		for version := uint64(len(releases[model])); version > 0; version-- {
			r, err := c.release(&choirv1.ReleaseRequest{Model: model, Version: version})
			if err != nil {
				return nil, err
			}
			reply.Releases = append(reply.Releases, r)
		}
	}
	return reply, nil
}
