package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"choir.example/fedavg"
	"choir.example/internal/blob"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// header is of an attempt that a test delivers an update for.
func header(node string) fedavg.Header {
	return fedavg.Header{Cluster: "test", Job: "job", Round: 3, Attempt: 1, Node: node}
}

func receiptFor(h fedavg.Header, update [32]byte) audit.Receipt {
	return audit.Receipt{Cluster: h.Cluster, Job: h.Job, Round: h.Round, Attempt: h.Attempt, Node: h.Node, Update: update, Index: 9}
}

func refusalFor(h fedavg.Header, update [32]byte) audit.Refusal {
	return audit.Refusal{Cluster: h.Cluster, Job: h.Job, Round: h.Round, Attempt: h.Attempt, Node: h.Node, Update: update, Index: 9, Reason: "too late"}
}

func signature(cred *seal.Credential, signer, domain string, body []byte) []*choirv1.Signature {
	return []*choirv1.Signature{{Signer: signer, Signature: seal.Sign(cred.Key, domain, body)}}
}

func signedReceipt(cred *seal.Credential, signer string, r audit.Receipt) *choirv1.Outcome {
	body := r.Encode()
	return &choirv1.Outcome{Body: &choirv1.Outcome_Receipt{Receipt: &choirv1.Receipt{
		Body: body, Signatures: signature(cred, signer, audit.DomainReceipt, body), Chain: cred.Chain}}}
}

func signedRefusal(cred *seal.Credential, signer string, r audit.Refusal) *choirv1.Outcome {
	body := r.Encode()
	return &choirv1.Outcome{Body: &choirv1.Outcome_Refusal{Refusal: &choirv1.Refusal{
		Body: body, Signatures: signature(cred, signer, audit.DomainRefusal, body), Chain: cred.Chain}}}
}

var pendingOutcome = &choirv1.Outcome{Body: &choirv1.Outcome_Pending{Pending: true}}

// An answer counts only if a coordinator of the federation signed it, about this very update.
func TestOnlySignedAnswersCount(t *testing.T) {
	p, foreign := newParty(t, "test"), newParty(t, "test")
	id := p.identity("node-01", "c1")
	good, stranger := p.certify(seal.RoleCoordinator, "c1"), foreign.certify(seal.RoleCoordinator, "c1")
	other, operator := p.certify(seal.RoleNode, "c1"), p.certify(seal.RoleOperator, "c1")
	h, update := header("node-01"), [32]byte{1, 2, 3}
	receipt, refusal := receiptFor(h, update), refusalFor(h, update)
	changed := func(f func(*audit.Receipt)) *choirv1.Outcome {
		r := receipt
		f(&r)
		return signedReceipt(good, "c1", r)
	}
	refused := func(f func(*audit.Refusal)) *choirv1.Outcome {
		r := refusal
		f(&r)
		return signedRefusal(good, "c1", r)
	}
	forged := func(f func(*choirv1.Receipt)) *choirv1.Outcome {
		out := signedReceipt(good, "c1", receipt)
		f(out.GetReceipt())
		return out
	}
	for name, c := range map[string]struct {
		out *choirv1.Outcome
		say string
	}{
		"signature changed":          {forged(func(r *choirv1.Receipt) { r.Signatures[0].Signature[5] ^= 1 }), "receipt: "},
		"no signature":               {forged(func(r *choirv1.Receipt) { r.Signatures = nil }), "receipt: "},
		"no certificate":             {forged(func(r *choirv1.Receipt) { r.Chain = nil }), "receipt: "},
		"certificate of another":     {forged(func(r *choirv1.Receipt) { r.Chain = p.certify(seal.RoleCoordinator, "c1").Chain }), "receipt: "},
		"body changed":               {forged(func(r *choirv1.Receipt) { r.Body[len(r.Body)-1] ^= 1 }), "receipt: "},
		"of another federation":      {signedReceipt(stranger, "c1", receipt), "receipt: "},
		"signed by a node":           {signedReceipt(other, "c1", receipt), "signed by node c1"},
		"signed by an operator":      {signedReceipt(operator, "c1", receipt), "signed by operator c1"},
		"in another's name":          {signedReceipt(good, "c2", receipt), "receipt: "},
		"for another update":         {changed(func(r *audit.Receipt) { r.Update[0]++ }), "receipt is for another update"},
		"for another node":           {changed(func(r *audit.Receipt) { r.Node = "node-02" }), "receipt is for another update"},
		"for another round":          {changed(func(r *audit.Receipt) { r.Round++ }), "receipt is for another update"},
		"for another attempt":        {changed(func(r *audit.Receipt) { r.Attempt++ }), "receipt is for another update"},
		"for another job":            {changed(func(r *audit.Receipt) { r.Job = "jab" }), "receipt is for another update"},
		"for another cluster":        {changed(func(r *audit.Receipt) { r.Cluster = "tost" }), "receipt is for another update"},
		"refusal of another update":  {refused(func(r *audit.Refusal) { r.Update[31]++ }), "refusal is for another update"},
		"refusal of another attempt": {refused(func(r *audit.Refusal) { r.Attempt = 0 }), "refusal is for another update"},
		"refusal by another root":    {signedRefusal(stranger, "c1", refusal), "refusal: "},
		"refusal signed by a node":   {signedRefusal(other, "c1", refusal), "signed by node c1"},
		"refusal signed as a receipt": {func() *choirv1.Outcome {
			o := signedRefusal(good, "c1", refusal)
			o.GetRefusal().Signatures = signature(good, "c1", audit.DomainReceipt, o.GetRefusal().Body)
			return o
		}(), "refusal: "},
		"no receipt at all": {func() *choirv1.Outcome {
			b := []byte("gibberish")
			return &choirv1.Outcome{Body: &choirv1.Outcome_Receipt{Receipt: &choirv1.Receipt{Body: b, Signatures: signature(good, "c1", audit.DomainReceipt, b), Chain: good.Chain}}}
		}(), "decode receipt"},
	} {
		got, err := verifyAnswer(id, p.deps(), h, update, c.out)
		if got != nil {
			t.Errorf("%s: counted as %v", name, got)
		}
		if wantError(t, err, c.say); err == nil {
			t.Log(name)
		}
	}
	for name, out := range map[string]*choirv1.Outcome{"pending": pendingOutcome, "empty": {}, "none": nil} {
		if got, err := verifyAnswer(id, p.deps(), h, update, out); got != nil || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if got, err := verifyAnswer(id, p.deps(), h, update, signedReceipt(good, "c1", receipt)); err != nil || *got.receipt != receipt {
		t.Errorf("good receipt: %v, %v", got, err)
	}
	if got, err := verifyAnswer(id, p.deps(), h, update, signedRefusal(good, "c1", refusal)); err != nil || *got.refusal != refusal {
		t.Errorf("good refusal: %v, %v", got, err)
	}
	late := p.deps()
	late.Now = func() time.Time { return time.Now().Add(31 * 24 * time.Hour) }
	_, err := verifyAnswer(id, late, h, update, signedReceipt(good, "c1", receipt))
	if !errors.Is(err, seal.ErrExpired) {
		t.Errorf("a certificate that has expired: %v", err)
	}
}

// The keys to seal to are those that coordinators of this federation signed, for this cluster and epoch.
func TestRecipientsAreVerified(t *testing.T) {
	p, foreign := newParty(t, "test"), newParty(t, "test")
	id := p.identity("node-01", "c1")
	cred, stranger, other := p.certify(seal.RoleCoordinator, "c1"), foreign.certify(seal.RoleCoordinator, "c1"), p.certify(seal.RoleNode, "c1")
	for name, c := range map[string]struct {
		key *choirv1.EpochKey
		say string
	}{
		"another root":        {epochKey(t, stranger, "test", "c1", nil), "epoch key of c1"},
		"a node":              {epochKey(t, other, "test", "c1", nil), "certified for node c1"},
		"another coordinator": {epochKey(t, cred, "test", "c2", nil), "certified for coordinator c1"},
		"another cluster":     {epochKey(t, cred, "tost", "c1", nil), "epoch key of c1"},
		"another epoch":       {epochKey(t, cred, "test", "c1", func(k *choirv1.EpochKey) { k.Epoch++ }), "epoch key of c1"},
		"another recipient":   {epochKey(t, cred, "test", "c1", func(k *choirv1.EpochKey) { k.Recipient += "x" }), "epoch key of c1"},
		"no signature":        {epochKey(t, cred, "test", "c1", func(k *choirv1.EpochKey) { k.Signature = nil }), "epoch key of c1"},
		"no certificate":      {epochKey(t, cred, "test", "c1", func(k *choirv1.EpochKey) { k.Chain = nil }), "epoch key of c1"},
	} {
		good := epochKey(t, cred, "test", "c1", nil)
		to, err := recipients(id, "test", []*choirv1.EpochKey{good, c.key}, p.deps())
		if wantError(t, err, c.say); err == nil || to != nil {
			t.Errorf("%s: %v", name, to)
		}
	}
	_, err := recipients(id, "test", nil, p.deps())
	wantError(t, err, "names no epoch key")
}

func epochKey(t testing.TB, cred *seal.Credential, cluster, name string, change func(*choirv1.EpochKey)) *choirv1.EpochKey {
	t.Helper()
	key, err := seal.NewEpochKey(1)
	if err != nil {
		t.Fatal(err)
	}
	k := &choirv1.EpochKey{Coordinator: name, Epoch: 1, Recipient: key.Recipient(), Signature: key.Sign(cluster, name, cred.Key), Chain: cred.Chain}
	if change != nil {
		change(k)
	}
	return k
}

// delivery is a node about to deliver a payload to addresses.
func (p *party) delivery(addresses ...string) (*Node, *choirv1.Task, fedavg.Header, []byte, []string) {
	p.t.Helper()
	key, err := seal.NewEpochKey(1)
	if err != nil {
		p.t.Fatal(err)
	}
	n := &Node{deps: p.deps(), client: p.client(addresses...), metrics: newMetrics()}
	n.id = n.client.id
	if n.journal, err = openJournal(p.t.TempDir()); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = n.journal.close() })
	h := header(n.id.name)
	payload := (&fedavg.Payload{Header: h, Update: fedavg.Update{Weight: 1, Scalars: make([]int64, 100_000)}}).Encode()
	t := &choirv1.Task{Key: &choirv1.RoundKey{Job: h.Job, Round: h.Round, Attempt: h.Attempt}, RemainingMs: 60_000}
	return n, t, h, payload, []string{key.Recipient()}
}

// counts answers an upload with a receipt and tells of the digest.
func (p *party) counts(name string, got chan<- [32]byte) *service {
	s := &service{}
	cred := p.coordinator(name, s)
	s.upload = func(stream choirv1.Nodes_UploadServer) error {
		h, _, err := drain(stream)
		if err != nil {
			return err
		}
		r := receiptFor(header("node-01"), [32]byte(h.Update))
		got <- r.Update
		return stream.Send(answerWith(signedReceipt(cred, name, r)))
	}
	return s
}

// Whatever the first coordinator does wrong, the same update goes to the next one, after a bounded time.
func TestDeliveryMovesOn(t *testing.T) {
	hold := func(stream choirv1.Nodes_UploadServer) error { <-stream.Context().Done(); return nil }
	for name, c := range map[string]struct {
		upload func(choirv1.Nodes_UploadServer) error
		within time.Duration
	}{
		"it does not acknowledge": {hold, ackTimeout},
		"it does not decide": {func(stream choirv1.Nodes_UploadServer) error {
			if _, _, err := drain(stream); err != nil {
				return err
			}
			return hold(stream)
		}, waitTimeout},
		"it acknowledges the same again and again": {func(stream choirv1.Nodes_UploadServer) error {
			for stream.Context().Err() == nil {
				if err := stream.Send(acknowledge(1)); err != nil {
					return err
				}
				_ = pause(stream.Context(), time.Second)
			}
			return nil
		}, ackTimeout},
		"it acknowledges more than there is": {func(stream choirv1.Nodes_UploadServer) error {
			if err := stream.Send(acknowledge(1 << 40)); err != nil {
				return err
			}
			return hold(stream)
		}, 0},
		"it fails":   {func(choirv1.Nodes_UploadServer) error { return status.Error(codes.Unavailable, "stopping") }, 0},
		"it says ok": {func(choirv1.Nodes_UploadServer) error { return nil }, 0},
		"it leaves it pending": {func(stream choirv1.Nodes_UploadServer) error {
			return stream.Send(answerWith(pendingOutcome))
		}, 0},
		"it sends a forged receipt": {func(stream choirv1.Nodes_UploadServer) error {
			h, _, err := drain(stream)
			if err != nil {
				return err
			}
			forger := newParty(t, "test").certify(seal.RoleCoordinator, "c1")
			return stream.Send(answerWith(signedReceipt(forger, "c1", receiptFor(header("node-01"), [32]byte(h.Update)))))
		}, 0},
		"its answer is huge": {func(stream choirv1.Nodes_UploadServer) error {
			return stream.Send(answerWith(&choirv1.Outcome{Body: &choirv1.Outcome_Receipt{Receipt: &choirv1.Receipt{Body: make([]byte, 5<<20)}}}))
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newParty(t, "test")
				p.coordinator("c1", &service{upload: c.upload})
				got := make(chan [32]byte, 1)
				p.counts("c2", got)
				n, task, h, payload, to := p.delivery("c1", "c2")
				start := time.Now()
				a, err := n.deliver(t.Context(), task, h, payload, to)
				if err != nil || a.receipt == nil {
					t.Fatalf("%v, %v", a, err)
				}
				if took := time.Since(start); took < c.within || took > c.within+time.Second {
					t.Errorf("it took %v, want about %v", took, c.within)
				}
				if digest := <-got; digest != seal.UpdateDigest(payload) || a.receipt.Update != digest {
					t.Error("another update arrived")
				}
			})
		})
	}
}

// A server that is no coordinator of the federation never sees a byte of an update.
func TestOnlyCoordinatorsAreSentTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, foreign, elsewhere := newParty(t, "test"), newParty(t, "test"), newParty(t, "other")
		seen := &service{upload: func(choirv1.Nodes_UploadServer) error {
			t.Error("an update was sent to a stranger")
			return nil
		}}
		p.serve("another root", foreign.certify(seal.RoleCoordinator, "c1"), foreign.root, seen)
		p.serve("another cluster", elsewhere.certify(seal.RoleCoordinator, "c1"), elsewhere.root, seen)
		p.serve("a node", p.certify(seal.RoleNode, "node-02"), p.root, seen)
		p.serve("an operator", p.certify(seal.RoleOperator, "op"), p.root, seen)
		got := make(chan [32]byte, 1)
		p.counts("c1", got)
		n, task, h, payload, to := p.delivery("another root", "another cluster", "a node", "an operator", "nobody", "c1")
		if a, err := n.deliver(t.Context(), task, h, payload, to); err != nil || a.receipt == nil {
			t.Fatalf("%v, %v", a, err)
		}
		for _, text := range []string{"the server is node node-02", "the server is operator op", "nobody listens"} {
			if p.log.count(text) == 0 {
				t.Errorf("the log does not say %q:\n%s", text, p.log)
			}
		}
	})
}

// Without an answer the node gives up some time after the round's end, and not before.
func TestDeliveryEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, "test")
		p.coordinator("c1", &service{upload: func(choirv1.Nodes_UploadServer) error {
			return status.Error(codes.NotFound, "round 3 of job \"job\" is not known")
		}})
		n, task, h, payload, to := p.delivery("c1")
		start := time.Now()
		a, err := n.deliver(t.Context(), task, h, payload, to)
		if wantError(t, err, "is not known"); a != nil {
			t.Errorf("answered by %v", a)
		}
		if took := time.Since(start); took < time.Minute+grace || took > time.Minute+grace+2*lastBackoff {
			t.Errorf("it took %v", took)
		}
		if n := p.log.count("level=WARN", "no coordinator did what was asked", "is not known"); n != 1 {
			t.Errorf("%d warnings, want one", n)
		}
	})
}

// An update that is turned away for cause is tried on until the refusal is signed, without haste, and the log says why.
func TestUpdateTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, "test")
		tries := 0
		s := &service{}
		cred := p.coordinator("c1", s)
		s.upload = func(stream choirv1.Nodes_UploadServer) error {
			h, _, err := drain(stream)
			if err != nil {
				return err
			}
			if tries++; tries < 4 {
				return status.Error(codes.InvalidArgument, "norm exceeds the clip norm")
			}
			return stream.Send(answerWith(signedRefusal(cred, "c1", refusalFor(header("node-01"), [32]byte(h.Update)))))
		}
		n, task, h, payload, to := p.delivery("c1")
		start := time.Now()
		a, err := n.deliver(t.Context(), task, h, payload, to)
		if err != nil || a.refusal == nil || a.refusal.Reason != "too late" {
			t.Fatalf("%v, %v", a, err)
		}
		if took := time.Since(start); took < 3*lastBackoff {
			t.Errorf("four tries in %v", took)
		}
		if p.log.count("level=WARN", "update turned away", "norm exceeds the clip norm") != 3 {
			t.Errorf("log: %s", p.log)
		}
	})
}

// blobs answers with chunks, the first of which announces a total.
func blobs(total uint64, chunks ...[]byte) func(*choirv1.BlobRequest, choirv1.Nodes_GetBlobServer) error {
	return func(_ *choirv1.BlobRequest, stream choirv1.Nodes_GetBlobServer) error {
		for i, c := range chunks {
			m := &choirv1.BlobChunk{Data: c}
			if i == 0 {
				m.Total = total
			}
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		return nil
	}
}

// A blob comes from whoever has it; what is not it, too long, too short or stalled is not taken.
func TestFetchTakesTheBlobOnly(t *testing.T) {
	body := bytes.Repeat([]byte("model"), 100_000)
	id := blob.ID(body)
	endless := func(data []byte) func(*choirv1.BlobRequest, choirv1.Nodes_GetBlobServer) error {
		return func(_ *choirv1.BlobRequest, stream choirv1.Nodes_GetBlobServer) error {
			for {
				if err := stream.Send(&choirv1.BlobChunk{Data: data, Total: uint64(len(body))}); err != nil {
					return err
				}
			}
		}
	}
	for name, c := range map[string]struct {
		blob func(*choirv1.BlobRequest, choirv1.Nodes_GetBlobServer) error
		say  string
	}{
		"another blob":    {blobs(uint64(len(body)), append([]byte("M"), body[1:]...)), "not the blob asked for"},
		"cut":             {blobs(uint64(len(body)), body[:400_000]), "stream ended after 400000 of 500000 bytes"},
		"nothing":         {blobs(0), "stream ended after 0 of 0 bytes"},
		"no end":          {endless(body[:300_000]), "chunk of 300000 bytes after 300000 of 500000"},
		"empty chunks":    {endless(nil), "chunk of 0 bytes after 0"},
		"too large":       {blobs(1<<40, body), "blob of 1099511627776 bytes is too large"},
		"too large chunk": {blobs(5<<20, make([]byte, 5<<20)), "larger than max"},
		"stalled": {func(_ *choirv1.BlobRequest, stream choirv1.Nodes_GetBlobServer) error {
			_ = stream.Send(&choirv1.BlobChunk{Data: body[:10], Total: uint64(len(body))})
			<-stream.Context().Done()
			return nil
		}, "the coordinator stopped sending"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newParty(t, "test")
				p.coordinator("c1", &service{blob: c.blob})
				p.coordinator("c2", &service{blob: blobs(uint64(len(body)), body[:200_000], body[200_000:])})
				start := time.Now()
				got, err := p.client("c1", "c2").fetch(t.Context(), id[:])
				if err != nil || !bytes.Equal(got, body) {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
				if p.log.count(c.say) == 0 {
					t.Errorf("the log does not say %q: %s", c.say, p.log)
				}
				if time.Since(start) > stallTimeout+time.Second {
					t.Errorf("it took %v", time.Since(start))
				}
				start = time.Now()
				_, err = p.client("c1").fetch(t.Context(), id[:])
				wantError(t, err, fmt.Sprintf("fetch blob %x", id))
				if took := time.Since(start); took > fetchTimeout {
					t.Errorf("it gave up after %v", took)
				}
			})
		})
	}
	_, err := newParty(t, "test").client("c1").fetch(t.Context(), []byte("short"))
	wantError(t, err, "id of 5 bytes")
}

// Advice changes the order; what the token named stays, and nobody can make the list or the connections grow.
func TestAdviceKeepsTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, "test")
		for _, name := range []string{"c1", "c2"} {
			p.coordinator(name, &service{poll: func(context.Context, *choirv1.PollRequest) (*choirv1.PollReply, error) {
				return &choirv1.PollReply{}, nil
			}})
		}
		c := p.client("c1")
		poll := func() {
			if _, err := c.poll(t.Context(), &choirv1.PollRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		advise := func(addresses ...string) {
			var a []*choirv1.UploadAddress
			for _, x := range addresses {
				a = append(a, &choirv1.UploadAddress{Address: x})
			}
			c.prefer(a)
		}
		advise("c2", "", "c2")
		if !slices.Equal(c.addresses, []string{"c2", "c1"}) {
			t.Errorf("addresses are %q", c.addresses)
		}
		poll()
		advise("nowhere")
		if !slices.Equal(c.addresses, []string{"nowhere", "c1"}) || len(c.conns) != 0 {
			t.Errorf("addresses are %q, with %d connections", c.addresses, len(c.conns))
		}
		poll() // reaches c1 in the end
		advise()
		if len(c.addresses) != 2 {
			t.Errorf("no advice made %q", c.addresses)
		}
		var many []string
		for i := range 1000 {
			many = append(many, fmt.Sprint("c", i))
		}
		advise(many...)
		if len(c.addresses) != maxAddresses || !slices.Contains(c.addresses, "c1") {
			t.Errorf("%d addresses", len(c.addresses))
		}
	})
}

// A reply larger than a message may be is an error, not memory.
func TestHugePollReplyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, "test")
		p.coordinator("c1", &service{poll: func(context.Context, *choirv1.PollRequest) (*choirv1.PollReply, error) {
			return &choirv1.PollReply{Head: make([]byte, 5<<20)}, nil
		}})
		p.coordinator("c2", &service{poll: func(context.Context, *choirv1.PollRequest) (*choirv1.PollReply, error) {
			return &choirv1.PollReply{ComeBackMs: 7}, nil
		}})
		reply, err := p.client("c1", "c2").poll(t.Context(), &choirv1.PollRequest{})
		if err != nil || reply.ComeBackMs != 7 {
			t.Fatalf("%v, %v", reply, err)
		}
	})
}

// A call ends with its context, also while nobody can be reached.
func TestCallsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, "test")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err := p.client("c1", "c2", "c3").poll(ctx, &choirv1.PollRequest{WaitMs: 1000})
		if err == nil || ctx.Err() == nil {
			t.Errorf("ended by %v", err)
		}
		if p.log.count("level=WARN") != 1 {
			t.Errorf("%d warnings in an hour", p.log.count("level=WARN"))
		}
		if n := p.log.count("level=DEBUG"); n > 3*3600/2+100 {
			t.Errorf("%d tries in an hour", n)
		}
	})
}
