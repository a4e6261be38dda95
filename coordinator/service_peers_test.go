package coordinator

import (
	"strings"
	"testing"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A coordinator speaks for itself only: the log takes neither another's epoch key nor another's batch from it.
func TestPeersSpeakForThemselves(t *testing.T) {
	f := startFederation(t, 3, nil, Observer{})
	leader := f.leader()
	other := "c1"
	if leader == other {
		other = "c2"
	}
	m := f.member(other)
	peer := choirv1.NewPeersClient(f.connect(leader, m.deps.Credential))
	signed := func(coordinator string) *choirv1.EpochKey {
		k := m.epochs.newest()
		return &choirv1.EpochKey{Coordinator: coordinator, Epoch: k.Epoch + 1, Recipient: k.Recipient(),
			Signature: k.Sign("test", coordinator, m.deps.Credential.Key)}
	}
	announce := func(k *choirv1.EpochKey) *choirv1.Command {
		return &choirv1.Command{Body: &choirv1.Command_AnnounceEpoch{AnnounceEpoch: &choirv1.AnnounceEpoch{Key: k}}}
	}
	for _, test := range []struct {
		name string
		cmd  *choirv1.Command
		says string
	}{
		{"another's epoch key", announce(signed(leader)), "that it has not signed"},
		{"an epoch key signed for another epoch", announce(signed(other)), "that it has not signed"},
		{"another's batch", &choirv1.Command{Body: &choirv1.Command_AcceptBatch{AcceptBatch: &choirv1.AcceptBatch{
			Key: &choirv1.RoundKey{Job: "job", Round: 1, Attempt: 1}, Coordinator: leader,
		}}}, "proposes a batch of"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, err := state.Encode(test.cmd)
			if err != nil {
				t.Fatal(err)
			}
			before := f.member(leader).replica.State().Log.Size()
			_, err = peer.Propose(f.ctx(), &choirv1.ProposeRequest{Command: b})
			if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want something with %q", err, test.says)
			}
			if now := f.member(leader).replica.State().Log.Size(); now != before {
				t.Errorf("%d records, then %d", before, now)
			}
		})
	}
}
