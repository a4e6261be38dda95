package node

import (
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"choir.example/model"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// shop answers for releases and their files.
type shop struct {
	releases map[string]*choirv1.Release
	blobs    map[string][]byte
	asked    int
}

func newShop() *shop {
	return &shop{releases: map[string]*choirv1.Release{}, blobs: map[string][]byte{}}
}

// add publishes a model as one variant.
func (s *shop) add(t testing.TB, m *model.Model, version uint64) *choirv1.Release {
	body, id := encoded(t, m)
	s.blobs[string(id[:])] = body
	rel := &choirv1.Release{Model: m.Name, Version: version, Variants: []*choirv1.Variant{{Name: m.Variant, Blob: id[:], Published: true}}}
	s.releases[m.Name] = rel
	return rel
}

func (s *shop) service() *service {
	return &service{
		release: func(r *choirv1.ReleaseRequest) (*choirv1.Release, error) {
			s.asked++
			if rel := s.releases[r.Model]; rel != nil {
				return rel, nil
			}
			return nil, status.Error(codes.NotFound, "no such release")
		},
		blob: func(r *choirv1.BlobRequest, stream choirv1.Nodes_GetBlobServer) error {
			body := s.blobs[string(r.Id)]
			if body == nil {
				return status.Error(codes.NotFound, "no such blob")
			}
			return stream.Send(&choirv1.BlobChunk{Data: body, Total: uint64(len(body))})
		},
	}
}

// follower is a node that serves float32 models, without a port.
func (p *party) follower(dir string, addresses ...string) *Node {
	n := p.node(dir, func(c *Config, _ *Deps) { c.Variant = "float32" }, addresses...)
	n.serve = bareServer(p.t)
	n.serve.listener = fakeListener{}
	return n
}

func ref(model string, version uint64) []*choirv1.ReleaseRef {
	return []*choirv1.ReleaseRef{{Model: model, Version: version}}
}

// serves fails unless the node serves a model in a version.
func serves(t testing.TB, n *Node, m *model.Model, version uint64) {
	t.Helper()
	_, id := encoded(t, m)
	got := n.serve.models()[m.Name]
	if got == nil || got.version != version || got.digest != hex.EncodeToString(id[:]) || n.held()[m.Name] != version {
		t.Errorf("serves %+v, holds %v, want version %d of %s", got, n.held(), version, m.Name)
	}
}

func TestReleasesAreServedAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir, s := newParty(t, "test"), t.TempDir(), newShop()
		p.coordinator("c1", s.service())
		n := p.follower(dir, "c1")
		var told []string
		n.deps.Observe.Released = func(model string, _ uint64, variant string) { told = append(told, model+" "+variant) }
		first, second, other := toyModel(t, "toy", 1), toyModel(t, "toy", 2), toyModel(t, "../other", 3)
		for _, x := range []struct {
			m       *model.Model
			version uint64
		}{{first, 1}, {other, 9}, {second, 2}} {
			s.add(t, x.m, x.version)
			if !n.follow(t.Context(), ref(x.m.Name, x.version)) {
				t.Fatalf("not taken: %s", p.log)
			}
			serves(t, n, x.m, x.version)
		}
		serves(t, n, other, 9) // one model's release leaves the others alone
		if len(told) != 3 || told[1] != "../other float32" {
			t.Errorf("told of %q", told)
		}
		if info, err := os.Stat(n.releasePath("toy")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}

		n = p.follower(dir, "nowhere")
		n.loadReleases()
		serves(t, n, second, 2)
		serves(t, n, other, 9)
		_ = n.Close()

		n = p.follower(dir, "nowhere")
		flip(t, n.releasePath("toy"))
		if err := os.Rename(n.releasePath("../other"), n.releasePath("another")); err != nil {
			t.Fatal(err)
		}
		write(t, n.releasePath("short"), []byte("x"))
		n.loadReleases()
		if len(n.serve.models()) != 0 || len(n.held()) != 0 {
			t.Errorf("damaged releases are served: %v", n.held())
		}
		if p.log.count("level=WARN", "kept release not served", "it is damaged") != 2 || p.log.count("kept release not served", `of model \"../other\"`) != 1 {
			t.Errorf("log: %s", p.log)
		}
	})
}

// A node whose configured variant changed does not go on with the old one.
func TestAnotherVariantIsFetchedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir, s := newParty(t, "test"), t.TempDir(), newShop()
		p.coordinator("c1", s.service())
		s.add(t, toyModel(t, "toy", 1), 1)
		n := p.follower(dir, "c1")
		n.follow(t.Context(), ref("toy", 1))
		_ = n.Close()
		n = p.follower(dir, "c1")
		n.cfg.Variant = "int8"
		n.loadReleases()
		if len(n.held()) != 0 {
			t.Errorf("holds %v", n.held())
		}
		s.add(t, quantised(t), 1)
		n.follow(t.Context(), ref("toy", 1))
		serves(t, n, quantised(t), 1)
	})
}

// wildModel has finite parameters, and answers that are not.
func wildModel(t testing.TB) *model.Model {
	m := toyModel(t, "toy", 1)
	for i := range m.Params {
		m.Params[i] = 3e38
	}
	return m
}

// What is not what was released never replaces what is served, in memory or on disk. What can never be had is not asked
// for again; what may come is.
func TestBadReleasesLeaveTheOldOne(t *testing.T) {
	good := toyModel(t, "toy", 2)
	for name, c := range map[string]struct {
		change func(s *shop, rel *choirv1.Release)
		say    string
		final  bool
	}{
		"another blob": {func(s *shop, rel *choirv1.Release) {
			body, _ := encoded(t, toyModel(t, "toy", 3))
			s.blobs[string(rel.Variants[0].Blob)] = body
		}, "not the blob asked for", false},
		"a flipped bit": {func(s *shop, rel *choirv1.Release) {
			s.blobs[string(rel.Variants[0].Blob)][900] ^= 1
		}, "not the blob asked for", false},
		"no blob":          {func(s *shop, rel *choirv1.Release) { clear(s.blobs) }, "no such blob", false},
		"an id of no blob": {func(s *shop, rel *choirv1.Release) { rel.Variants[0].Blob = []byte("x") }, "id of 1 bytes", false},
		"no release":       {func(s *shop, rel *choirv1.Release) { clear(s.releases) }, "no such release", false},
		"another version":  {func(s *shop, rel *choirv1.Release) { rel.Version = 8 }, `answered with version 8 of model \"toy\"`, false},
		"another model":    {func(s *shop, rel *choirv1.Release) { rel.Model = "tay" }, `answered with version 2 of model \"tay\"`, false},
		"withheld": {func(s *shop, rel *choirv1.Release) {
			rel.Variants[0].Published, rel.Variants[0].Reason = false, "AUC fell"
		}, "withheld: AUC fell", true},
		"no variants":     {func(s *shop, rel *choirv1.Release) { rel.Variants = nil }, "no variant float32", true},
		"other variants":  {func(s *shop, rel *choirv1.Release) { rel.Variants[0].Name = "int8" }, "no variant float32", true},
		"file of another": {func(s *shop, rel *choirv1.Release) { rel.Variants[0] = s.addAs(t, toyModel(t, "tay", 1), "float32") }, `holds variant float32 of model \"tay\"`, true},
		"file of int8":    {func(s *shop, rel *choirv1.Release) { rel.Variants[0] = s.addAs(t, quantised(t), "float32") }, `holds variant int8 of model \"toy\"`, true},
		"answers no numbers": {func(s *shop, rel *choirv1.Release) {
			rel.Variants[0] = s.addAs(t, wildModel(t), "float32")
		}, "its self-test: it answers synthetic rows with what is no number", true},
		"another schema": {func(s *shop, rel *choirv1.Release) {
			schema := toySchema(t)
			schema.Columns[0].Max = 99
			rel.Variants[0] = s.addAs(t, modelOf(t, schema, "toy", 1), "float32")
		}, "its self-test: it is for another schema than version 1, which is in use", true},
		"file that is none": {func(s *shop, rel *choirv1.Release) { rel.Variants[0] = s.addFile([]byte("no model")) }, "release not taken", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, dir, s := newParty(t, "test"), t.TempDir(), newShop()
				p.coordinator("c1", s.service())
				n := p.follower(dir, "c1")
				old := toyModel(t, "toy", 1)
				s.add(t, old, 1)
				n.follow(t.Context(), ref("toy", 1))
				kept, err := os.ReadFile(n.releasePath("toy"))
				if err != nil {
					t.Fatal(err)
				}
				c.change(s, s.add(t, good, 2))
				start := time.Now()
				if n.follow(t.Context(), ref("toy", 2)) != c.final {
					t.Errorf("settled is not %v", c.final)
				}
				if took := time.Since(start); took > fetchTimeout+time.Second {
					t.Errorf("it took %v", took)
				}
				if p.log.count("level=WARN", c.say) == 0 {
					t.Errorf("the log does not say %q: %s", c.say, p.log)
				}
				if m := n.serve.models()["toy"]; m.version != 1 || (n.held()["toy"] == 2) != c.final {
					t.Errorf("serves version %d, holds %v", m.version, n.held())
				}
				if now, err := os.ReadFile(n.releasePath("toy")); string(now) != string(kept) {
					t.Errorf("the kept file changed, %v", err)
				}
				s.add(t, good, 3)
				n.follow(t.Context(), ref("toy", 3))
				serves(t, n, good, 3)
			})
		})
	}
}

// addAs makes a model's file a variant of another name.
func (s *shop) addAs(t testing.TB, m *model.Model, variant string) *choirv1.Variant {
	body, id := encoded(t, m)
	s.blobs[string(id[:])] = body
	return &choirv1.Variant{Name: variant, Blob: id[:], Published: true}
}

func (s *shop) addFile(body []byte) *choirv1.Variant {
	id := blobID(body)
	s.blobs[string(id)] = body
	return &choirv1.Variant{Name: "float32", Blob: id, Published: true}
}

func TestReleaseThatCannotBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir, s := newParty(t, "test"), t.TempDir(), newShop()
		p.coordinator("c1", s.service())
		n := p.follower(dir, "c1")
		s.add(t, toyModel(t, "toy", 1), 1)
		if err := os.MkdirAll(filepath.Join(n.releasePath("toy"), "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		if n.follow(t.Context(), ref("toy", 1)) || len(n.serve.models()) != 0 {
			t.Error("a release that is not kept is served")
		}
		if p.log.count("level=WARN", "release not taken", n.releasePath("toy")) != 1 {
			t.Errorf("log: %s", p.log)
		}
	})
}

// Whatever a coordinator answers at once, the node neither spins nor stops: it stays polite and goes on to do good tasks.
func TestRunIsPoliteToNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir := newParty(t, "test"), t.TempDir()
		s := newShop().service()
		cred := p.coordinator("c1", s)
		polls, sent := 0, 0
		good := p.statisticsTask(cred, "c1")
		replies := []func() *choirv1.PollReply{
			func() *choirv1.PollReply { return &choirv1.PollReply{} },
			func() *choirv1.PollReply { return &choirv1.PollReply{Task: &choirv1.Task{}} },
			func() *choirv1.PollReply {
				return &choirv1.PollReply{Task: &choirv1.Task{Key: good.Key, Job: &choirv1.JobSpec{}}}
			},
			func() *choirv1.PollReply {
				bad := p.statisticsTask(cred, "c1")
				bad.Job.WeightCap = -1
				return &choirv1.PollReply{Task: bad}
			},
			func() *choirv1.PollReply {
				bad := p.statisticsTask(cred, "c1")
				bad.Keys[0].Signature[0] ^= 1
				return &choirv1.PollReply{Task: bad}
			},
			func() *choirv1.PollReply { return &choirv1.PollReply{ComeBackMs: 1 << 60, Head: []byte("x")} },
			func() *choirv1.PollReply {
				return &choirv1.PollReply{Addresses: []*choirv1.UploadAddress{{Address: "nowhere"}}}
			},
		}
		s.poll = func(context.Context, *choirv1.PollRequest) (*choirv1.PollReply, error) {
			if polls++; polls%len(replies) == 0 {
				return &choirv1.PollReply{Task: good}, nil
			}
			return replies[polls%len(replies)](), nil
		}
		s.upload = func(stream choirv1.Nodes_UploadServer) error {
			h, _, err := drain(stream)
			if err != nil {
				return err
			}
			sent++
			return stream.Send(answerWith(signedReceipt(cred, "c1", receiptFor(header("node-01"), [32]byte(h.Update)))))
		}
		n := p.node(dir, nil, "c1")
		if err := n.store.SetSchema(toySchema(t)); err != nil {
			t.Fatal(err)
		}
		importCSV(t, n.store, Train, toyCSV(5))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if err := n.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if polls < 50 || polls > 5*60*20 {
			t.Errorf("%d polls in five minutes", polls)
		}
		if sent < 5 {
			t.Errorf("%d good tasks were done", sent)
		}
		for _, text := range []string{"of cluster", "weight_cap is -1", "epoch key of c1"} {
			if p.log.count("level=WARN", "task not done", text) == 0 {
				t.Errorf("the log does not say %q", text)
			}
		}
		if names, err := n.spool.names(); len(names) != 0 || err != nil {
			t.Errorf("%q are left in the spool, %v", names, err)
		}
	})
}
