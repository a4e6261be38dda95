package coordinator

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"choir.example/coordinator/state"
	"choir.example/internal/rpc"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	nodeCertificateLife = 7 * 24 * time.Hour
	maxTokenLife        = 30 * 24 * time.Hour
)

// enrolmentService is open to callers without a certificate.
type enrolmentService struct {
	choirv1.UnimplementedEnrolmentServer
	*Coordinator
}

// Enrol admits a node that proves a token's secret and the possession of its own key.
func (c enrolmentService) Enrol(ctx context.Context, req *choirv1.EnrolRequest) (*choirv1.EnrolReply, error) {
	if !seal.VerifyEnrolment(req.PublicKey, req.TokenId, req.Name, req.Proof) {
		return nil, status.Error(codes.InvalidArgument, "enrol: the request is not signed by its own key")
	}
	secret := sha256.Sum256(req.TokenSecret)
	cmd := &choirv1.Command{Body: &choirv1.Command_Enrol{Enrol: &choirv1.Enrol{
		TokenId: req.TokenId, SecretHash: secret[:], Name: req.Name, PublicKey: req.PublicKey, TimeMs: c.deps.Now().UnixMilli(),
	}}}
	if _, err := c.rehearse(ctx, req.TokenId, cmd); err != nil {
		return nil, rpcError("enrol", err)
	}
	done, err := c.enrolling(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	err = c.command(ctx, cmd, nil)
	if err != nil {
		return nil, rpcError("enrol", err)
	}
	own := c.own.Load()
	chain, err := own.issuer.CertifyNode(req.Name, req.PublicKey, c.deps.Now(), nodeCertificateLife)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "enrol: %v", err)
	}
	return &choirv1.EnrolReply{Chain: chain, Root: own.root.Raw}, nil
}

// rehearse applies an enrolment or a request to join to the own state only. Callers have no certificate yet, so what would
// be refused without a trace takes no place in the log; nor need what changes nothing. A token that is not known may have
// been made elsewhere a moment ago.
func (c *Coordinator) rehearse(ctx context.Context, token string, cmd *choirv1.Command) (news bool, err error) {
	b, err := state.Encode(cmd)
	if err != nil {
		return false, &refusedCommand{err}
	}
	within, cancel := context.WithTimeout(ctx, newsTimeout)
	defer cancel()
	s, err := c.replica.Wait(within, func(s *state.State) bool { _, ok := s.Tokens[token]; return ok })
	if err != nil {
		s = c.replica.State()
	}
	next, refused := state.Apply(s, s.Index, c.replica.Term(), b)
	if refused != nil && next.Log.Size() == s.Log.Size() {
		return false, &refusedCommand{refused}
	}
	return next.Log.Size() != s.Log.Size(), nil
}

// rpcError maps the errors of commands to codes: the one place where they meet.
func rpcError(doing string, err error) error {
	code := codes.Unavailable
	switch {
	case errors.Is(err, state.ErrToken):
		code = codes.PermissionDenied
	case errors.Is(err, state.ErrExists):
		code = codes.AlreadyExists
	case errors.Is(err, state.ErrStale), errors.Is(err, state.ErrCohort), errors.Is(err, state.ErrBudget), errors.Is(err, state.ErrState):
		code = codes.FailedPrecondition
	case isRefusal(err):
		code = codes.InvalidArgument
	}
	return status.Errorf(code, "%s: %v", doing, err)
}

// operatorsService is what people and their tools call.
type operatorsService struct {
	choirv1.UnimplementedOperatorsServer
	*Coordinator
}

// SubmitJob commits a job; it starts by itself.
func (c operatorsService) SubmitJob(ctx context.Context, req *choirv1.SubmitJobRequest) (*choirv1.SubmitJobReply, error) {
	sets, err := takeSets(req)
	if err == nil {
		err = state.CheckSpec(req.Spec)
	}
	if err == nil {
		err = c.checkSets(req.Spec, sets)
	}
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "submit job: %v", err)
	}
	for _, s := range sets {
		if _, err := c.put(ctx, s.csv); err != nil {
			return nil, rpcError("submit job", err)
		}
	}
	err = c.command(ctx, &choirv1.Command{Body: &choirv1.Command_SubmitJob{SubmitJob: &choirv1.SubmitJob{
		Spec: req.Spec, TimeMs: c.deps.Now().UnixMilli(),
	}}}, func(s *state.State) bool { return submitted(s, req.Spec) })
	if err != nil {
		return nil, rpcError("submit job", err)
	}
	return &choirv1.SubmitJobReply{Name: req.Spec.Name}, nil
}

// submitted reports whether the state holds a job of exactly this specification.
func submitted(s *state.State, spec *choirv1.JobSpec) bool {
	j, ok := s.Jobs[spec.Name]
	if !ok {
		return false
	}
	held, err := j.JobSpec()
	return err == nil && proto.Equal(held, spec)
}

// GetJob tells where a job stands.
func (c operatorsService) GetJob(ctx context.Context, req *choirv1.GetJobRequest) (*choirv1.JobStatus, error) {
	s := c.replica.State()
	j, ok := s.Jobs[req.Name]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "job %q does not exist", req.Name)
	}
	return c.statuses(ctx, s, j)[0], nil
}

// WatchJob sends the status whenever it, or what the job waits for, changes, until the job has ended.
func (c operatorsService) WatchJob(req *choirv1.GetJobRequest, stream choirv1.Operators_WatchJobServer) error {
	var sent *state.Job
	said, due := "", false
	tick := time.NewTicker(waitingAgain)
	defer tick.Stop()
	for {
		turned, doubt := c.standing.look()
		if doubt != nil {
			return status.Errorf(codes.Unavailable, "watch job: %v", doubt)
		}
		changed := c.replica.Changed()
		s := c.replica.State()
		j, ok := s.Jobs[req.Name]
		if !ok {
			return status.Errorf(codes.NotFound, "job %q does not exist", req.Name)
		}
		if j != sent || due {
			now := c.statuses(stream.Context(), s, j)[0]
			if j != sent || now.Reason != said {
				if err := stream.Send(now); err != nil {
					return err
				}
			}
			sent, said, due = j, now.Reason, false
		}
		if j.Ended() {
			return nil
		}
		select {
		case <-changed:
		case <-turned:
		case <-tick.C:
			due = waits(j)
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-c.stopping:
			return status.Error(codes.Unavailable, "this coordinator is stopping")
		}
	}
}

func jobStatus(j *state.Job) *choirv1.JobStatus {
	out := &choirv1.JobStatus{Name: j.Name, State: j.Shown(), Reason: j.Reason, Round: j.Trained, Release: j.Release}
	for _, r := range j.Rounds {
		rs := &choirv1.RoundStatus{
			Round: r.Number, Attempt: r.Attempt, Kind: r.Kind, State: r.Phase, Reason: r.Reason,
			Invited: r.Invited, Accepted: r.Count, Refused: r.Refused, Weight: r.Weight,
		}
		if !r.Next.IsZero() {
			rs.Model = r.Next[:]
		}
		if !r.Sum.IsZero() {
			rs.Sum = r.Sum[:]
		}
		if len(r.Evaluation) > 0 && r.Kind == choirv1.RoundKind_ROUND_KIND_TRAIN {
			rs.Evaluation = evaluationStatus(r.Evaluation[0])
		}
		out.Rounds = append(out.Rounds, rs)
	}
	return out
}

// evaluationStatus leaves the histograms out: what a person reads.
func evaluationStatus(e state.Evaluation) *choirv1.EvaluationSum {
	if e.Examples == 0 {
		return &choirv1.EvaluationSum{} // an AUC of nothing is no figure
	}
	return &choirv1.EvaluationSum{
		Nodes: uint64(e.Nodes), Examples: e.Examples, Correct: e.Correct, Loss: e.Loss, AucMillionths: e.AUC,
	}
}

// GetRelease describes a release.
func (c operatorsService) GetRelease(_ context.Context, req *choirv1.ReleaseRequest) (*choirv1.Release, error) {
	return c.release(req)
}

// release describes a release; variant evaluations come without histograms.
func (c *Coordinator) release(req *choirv1.ReleaseRequest) (*choirv1.Release, error) {
	rel, ok := c.replica.State().Release(req.Model, req.Version)
	if !ok {
		return nil, status.Errorf(codes.NotFound, "model %q has no release %d", req.Model, req.Version)
	}
	out := &choirv1.Release{Model: rel.Model, Version: rel.Version, Job: rel.Job, Round: rel.Round}
	for _, v := range rel.Variants {
		out.Variants = append(out.Variants, &choirv1.Variant{
			Name: v.Name, Blob: v.Blob[:], Bytes: v.Bytes, Published: v.Published, Reason: v.Reason,
			Evaluation: evaluationStatus(v.Evaluation),
		})
	}
	return out, nil
}

// GetBlob streams what nodes may read, too.
func (c operatorsService) GetBlob(req *choirv1.BlobRequest, stream choirv1.Operators_GetBlobServer) error {
	return c.streamPublic(stream.Context(), req, stream.Send)
}

// GetStatus describes the cluster as this coordinator sees it. Where no leader confirms that, it does so only if asked
// to, and names none.
func (c operatorsService) GetStatus(ctx context.Context, req *choirv1.StatusRequest) (*choirv1.StatusReply, error) {
	doubt := c.confirm(ctx)
	if doubt != nil && !req.Unconfirmed {
		return nil, status.Errorf(codes.Unavailable, "status: %v", doubt)
	}
	s := c.replica.State()
	leader, _ := c.replica.Leader()
	if errors.Is(doubt, errNoLeader) {
		leader = ""
	}
	out := &choirv1.StatusReply{
		Cluster: s.Cluster, Leader: leader, Term: c.replica.Term(), Applied: s.Index,
		Nodes: enrolled(s), Records: s.Log.Size(), Officers: s.OfficerKeys(), Root: s.Root,
	}
	if doubt != nil {
		out.Unconfirmed = doubt.Error()
	}
	load := map[string]float64{}
	for _, m := range c.members.ByLoad() {
		load[m.Name] = m.Load
	}
	answers := c.answers(ctx, s)
	for _, v := range s.Coordinators {
		r := &choirv1.ReplicaStatus{Name: v.Name, Address: v.Address, State: "unreachable", Load: load[v.Name], ExpiresMs: expiresMS(v.Chain[0], issuerOf(v, answers))}
		if a, ok := answers[v.Name]; ok {
			r.State, r.Applied = "alive", a.Applied
			if !c.replica.votes(v.Name) {
				r.State = "joining" // it has no vote yet: it is still getting the log
			}
		}
		out.Replicas = append(out.Replicas, r)
	}
	return out, nil
}

// enrolled counts the nodes that were not revoked.
func enrolled(s *state.State) (n uint32) {
	for _, x := range s.Nodes {
		if !x.Revoked {
			n++
		}
	}
	return n
}

// public reports whether nodes and operators may read a blob: models, statistics, what strategies share, candidates under evaluation, and
// published variants. Batches and partial sums never.
func public(s *state.State, id state.Digest) bool {
	for _, j := range s.Jobs {
		if j.Model == id || j.Statistics == id || j.Strategy == id {
			return true
		}
		for _, r := range j.Rounds {
			if r.Model == id || r.Next == id || r.Strategy == id || slices.Contains(r.Candidates, id) {
				return true
			}
		}
	}
	for _, rs := range s.Releases {
		for _, rel := range rs {
			for _, v := range rel.Variants {
				if v.Blob == id && v.Published {
					return true
				}
			}
		}
	}
	return false
}

// streamPublic sends a public blob in chunks.
func (c *Coordinator) streamPublic(ctx context.Context, req *choirv1.BlobRequest, send func(*choirv1.BlobChunk) error) error {
	if len(req.Id) != 32 {
		return status.Errorf(codes.InvalidArgument, "blob id of %d bytes, want 32", len(req.Id))
	}
	if !public(c.replica.State(), state.Digest(req.Id)) {
		return status.Errorf(codes.NotFound, "blob %x is not public", req.Id)
	}
	body, err := c.blobs.Get(ctx, [32]byte(req.Id))
	if err != nil {
		return status.Errorf(codes.Unavailable, "blob %x: %v", req.Id, err)
	}
	return sendChunks(req.Id, body, send)
}

// sendChunks streams bytes in chunks; the first carries the id and the length.
func sendChunks(id, body []byte, send func(*choirv1.BlobChunk) error) error {
	m := &choirv1.BlobChunk{Id: id, Total: uint64(len(body))}
	for {
		n := min(len(body), rpc.ChunkBytes)
		m.Data, body = body[:n], body[n:]
		if err := send(m); err != nil {
			return err
		}
		if len(body) == 0 {
			return nil
		}
		m = &choirv1.BlobChunk{}
	}
}
