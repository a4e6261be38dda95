package coordinator

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// begin opens an upload, announces its size and leaves it at that. It waits until the coordinator is receiving it or has
// refused it.
func (n *testNode) begin(coordinator string, t *choirv1.Task, size uint64) (choirv1.Nodes_UploadClient, error) {
	n.f.t.Helper()
	stream, err := n.at(coordinator).Upload(n.f.ctx())
	if err != nil {
		return nil, err
	}
	h := &choirv1.UploadHeader{Key: t.Key, Update: make([]byte, 32), Size: size}
	if err := stream.Send(&choirv1.UploadRequest{Body: &choirv1.UploadRequest_Header{Header: h}}); err != nil {
		return nil, err
	}
	if err := stream.Send(&choirv1.UploadRequest{Body: &choirv1.UploadRequest_Chunk{Chunk: []byte{1}}}); err != nil {
		return nil, err
	}
	_, err = stream.Recv() // the chunk is acknowledged
	return stream, err
}

// A node may have two uploads under way, and no more bytes in them than the largest update has; others do not pay for it.
func TestLimitsOfUploads(t *testing.T) {
	t.Parallel()
	const most = 100 << 10
	f := startFederation(t, 1, func(c *Config) { c.MaxUpdate = most }, Observer{})
	nodes := f.enrol("a", "b")
	f.submit(testJob(t, 1))
	tasks := f.tasks(nodes)
	if _, err := nodes[0].begin("c1", tasks[0], 60<<10); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes[0].begin("c1", tasks[0], 60<<10); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "bytes under way") {
		t.Errorf("120 of 100 KiB: %v", err)
	}
	if _, err := nodes[0].begin("c1", tasks[0], 30<<10); err != nil {
		t.Errorf("90 of 100 KiB: %v", err)
	}
	if _, err := nodes[0].begin("c1", tasks[0], 1<<10); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "calls under way") {
		t.Errorf("a third upload: %v", err)
	}
	if _, err := nodes[1].begin("c1", tasks[1], 60<<10); err != nil {
		t.Errorf("another node: %v", err)
	}
	if _, err := nodes[1].begin("c1", tasks[1], most+1); status.Code(err) != codes.InvalidArgument {
		t.Errorf("more than an update may have: %v", err)
	}
}

// The other calls of one identity are counted, too.
func TestLimitOfCalls(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	client := f.enrol("a")[0].at("c1")
	answers := make(chan error, callsEach+8)
	var asking sync.WaitGroup
	for range cap(answers) {
		asking.Go(func() { // each is held until the round is known, or for two seconds
			_, err := client.GetOutcome(f.ctx(), &choirv1.OutcomeRequest{Key: &choirv1.RoundKey{Job: "none"}, Update: make([]byte, 32)})
			answers <- err
		})
	}
	asking.Wait()
	close(answers)
	count := map[codes.Code]int{}
	for err := range answers {
		count[status.Code(err)]++
	}
	if count[codes.ResourceExhausted] != 8 || count[codes.NotFound] != callsEach {
		t.Errorf("answers %v, want 8 refused and %d held", count, callsEach)
	}
}

// An enrolment waits while another from its address is under way, and is refused if its caller does not wait for that.
// A caller without a certificate has so many calls and no more, whatever the calls are.
func TestEnrolmentWaitsItsTurn(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	m := f.member("c1")
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request := enrolment(f.token(time.Hour), "a", key)
	client := choirv1.NewEnrolmentClient(f.connect("c1", nil))
	leave, err := m.limits.alone(t.Context(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan error, strangers)
	ctx, cancel := context.WithCancel(f.ctx())
	for range strangers {
		go func() {
			_, err := client.Enrol(ctx, request)
			answers <- err
		}()
	}
	waiting := func() int {
		m.limits.mu.Lock()
		defer m.limits.mu.Unlock()
		return m.limits.users["127.0.0.1"] - 1
	}
	f.eventually("all wait for their turn", func() bool { return waiting() == strangers })
	if _, err := client.Renew(f.ctx(), &choirv1.RenewRequest{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one call more: %v", err)
	}
	if m.replica.State().Nodes["a"].Key != nil {
		t.Error("it is enrolled out of turn")
	}
	cancel()
	for range strangers {
		<-answers
	}
	f.eventually("those who are gone wait no more", func() bool { return waiting() == 0 })
	leave()
	if _, err := client.Enrol(f.ctx(), request); err != nil {
		t.Errorf("in turn: %v", err)
	}
	f.wait("c1", "enrolled", func(s *state.State) bool { return s.Nodes["a"].Key != nil })
}
