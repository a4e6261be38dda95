package node

import (
	"context"
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"choir.example/internal/blob"
	"choir.example/model"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// shop answers for releases and their files, as coordinators of one federation do.
type shop struct {
	staff    map[string]*seal.Credential // the coordinators, by name
	releases map[string]*audit.Released
	blobs    map[string][]byte
	asked    int
}

func newShop() *shop {
	return &shop{staff: map[string]*seal.Credential{}, releases: map[string]*audit.Released{}, blobs: map[string][]byte{}}
}

// open has coordinators of a party answer for the shop, at addresses of their names.
func (s *shop) open(p *party, names ...string) *shop {
	for _, name := range names {
		s.staff[name] = p.coordinator(name, s.service())
	}
	return s
}

// add publishes a model as one variant.
func (s *shop) add(t testing.TB, m *model.Model, version uint64) *audit.Released {
	rel := &audit.Released{Model: m.Name, Version: version, Job: "job", Variants: []audit.Variant{s.addAs(t, m, m.Variant)}}
	s.releases[m.Name] = rel
	return rel
}

// prove proves a record by a log of a few, under a head that some of the staff signed, all if none is named.
func (s *shop) prove(record audit.Record, signers ...string) audit.Proof {
	log := audit.NewLog([][]byte{audit.Encode(&audit.NodeRevoked{Node: "x"}), audit.Encode(record), audit.Encode(&audit.NodeRevoked{Node: "y"})})
	h := audit.Head{Cluster: "test", Size: log.Size(), Root: log.Root()}
	if len(signers) == 0 {
		signers = slices.Sorted(maps.Keys(s.staff))
	}
	for _, name := range signers {
		h.Signatures = append(h.Signatures, audit.Signature{Signer: name, Signature: seal.Sign(s.staff[name].Key, audit.DomainHead, h.Message())})
	}
	p, err := log.Prove(1, h)
	if err != nil {
		panic(err) // it is in the log
	}
	return p
}

// answer is what an honest coordinator says of a release.
func (s *shop) answer(rel *audit.Released) *choirv1.Release {
	out := &choirv1.Release{Model: rel.Model, Version: rel.Version, Proof: s.prove(rel).Encode()}
	for _, v := range rel.Variants {
		out.Variants = append(out.Variants, &choirv1.Variant{Name: v.Name, Blob: v.Blob[:], Published: v.Published, Reason: v.Reason})
	}
	return out
}

func (s *shop) service() *service {
	return &service{
		release: func(r *choirv1.ReleaseRequest) (*choirv1.Release, error) {
			s.asked++
			if rel := s.releases[r.Model]; rel != nil {
				return s.answer(rel), nil
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

// follower is a node that serves float32 models, without a port. It knows the staff of a shop as the coordinators.
func (p *party) follower(s *shop, dir string, addresses ...string) *Node {
	n := p.node(dir, func(c *Config, _ *Deps) { c.Variant = "float32" }, addresses...)
	n.serve = bareServer(p.t)
	n.serve.listener = fakeListener{}
	n.enlist(rosterOf(1, s.staff, slices.Sorted(maps.Keys(s.staff))...))
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
		s.open(p, "c1")
		n := p.follower(s, dir, "c1")
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

		n = p.follower(s, dir, "nowhere")
		n.loadReleases()
		serves(t, n, second, 2)
		serves(t, n, other, 9)
		_ = n.Close()

		n = p.follower(s, dir, "nowhere")
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
		s.open(p, "c1")
		s.add(t, toyModel(t, "toy", 1), 1)
		n := p.follower(s, dir, "c1")
		n.follow(t.Context(), ref("toy", 1))
		_ = n.Close()
		n = p.follower(s, dir, "c1")
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
		change func(s *shop, rel *audit.Released)
		say    string
		final  bool
	}{
		"another blob": {func(s *shop, rel *audit.Released) {
			body, _ := encoded(t, toyModel(t, "toy", 3))
			s.blobs[string(rel.Variants[0].Blob[:])] = body
		}, "not the blob asked for", false},
		"a flipped bit": {func(s *shop, rel *audit.Released) {
			s.blobs[string(rel.Variants[0].Blob[:])][900] ^= 1
		}, "not the blob asked for", false},
		"no blob":         {func(s *shop, rel *audit.Released) { clear(s.blobs) }, "no such blob", false},
		"no release":      {func(s *shop, rel *audit.Released) { clear(s.releases) }, "no such release", false},
		"another version": {func(s *shop, rel *audit.Released) { rel.Version = 8 }, "what is proved is another record: released", false},
		"another model":   {func(s *shop, rel *audit.Released) { rel.Model = "tay" }, "what is proved is another record: released", false},
		"withheld": {func(s *shop, rel *audit.Released) {
			rel.Variants[0].Published, rel.Variants[0].Reason = false, "AUC fell"
		}, "withheld: AUC fell", true},
		"no variants":     {func(s *shop, rel *audit.Released) { rel.Variants = nil }, "no variant float32", true},
		"other variants":  {func(s *shop, rel *audit.Released) { rel.Variants[0].Name = "int8" }, "no variant float32", true},
		"file of another": {func(s *shop, rel *audit.Released) { rel.Variants[0] = s.addAs(t, toyModel(t, "tay", 1), "float32") }, `holds variant float32 of model \"tay\"`, true},
		"file of int8":    {func(s *shop, rel *audit.Released) { rel.Variants[0] = s.addAs(t, quantised(t), "float32") }, `holds variant int8 of model \"toy\"`, true},
		"answers no numbers": {func(s *shop, rel *audit.Released) {
			rel.Variants[0] = s.addAs(t, wildModel(t), "float32")
		}, "its self-test: it answers synthetic rows with what is no number", true},
		"another schema": {func(s *shop, rel *audit.Released) {
			schema := toySchema(t)
			schema.Columns[0].Max = 99
			rel.Variants[0] = s.addAs(t, modelOf(t, schema, "toy", 1), "float32")
		}, "its self-test: it is for another schema than version 1, which is in use", true},
		"file that is none": {func(s *shop, rel *audit.Released) { rel.Variants[0] = s.addFile([]byte("no model")) }, "release not taken", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, dir, s := newParty(t, "test"), t.TempDir(), newShop()
				s.open(p, "c1")
				n := p.follower(s, dir, "c1")
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
func (s *shop) addAs(t testing.TB, m *model.Model, variant string) audit.Variant {
	body, id := encoded(t, m)
	s.blobs[string(id[:])] = body
	return audit.Variant{Name: variant, Blob: id, Published: true}
}

func (s *shop) addFile(body []byte) audit.Variant {
	id := blob.ID(body)
	s.blobs[string(id[:])] = body
	return audit.Variant{Name: "float32", Blob: id, Published: true}
}

// One coordinator of three that lies about a release, in any way, has the node serve nothing: it names the liar once, and
// keeps what it has for as long as it reaches nobody else. The next honest one it asks gives it the release.
func TestALyingCoordinatorReleasesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		lie func(s *shop, false *audit.Released, stranger *shop) []byte // the proof with it
		say string
	}{
		"no proof":    {func(*shop, *audit.Released, *shop) []byte { return nil }, "there is no proof"},
		"nonsense":    {func(*shop, *audit.Released, *shop) []byte { return []byte("x") }, "decode proof"},
		"signs alone": {func(s *shop, f *audit.Released, _ *shop) []byte { return s.prove(f, "c1").Encode() }, "1 of 3 coordinators signed, a majority is 2"},
		"signs as others": {func(s *shop, f *audit.Released, _ *shop) []byte {
			p := s.prove(f)
			for i := range p.Head.Signatures {
				p.Head.Signatures[i].Signature = p.Head.Signatures[0].Signature
			}
			return p.Encode()
		}, "signature of c2: signature does not verify"},
		"has friends elsewhere": {func(_ *shop, f *audit.Released, stranger *shop) []byte { return stranger.prove(f).Encode() }, "0 of 3 coordinators signed"},
		"under the true head": {func(s *shop, f *audit.Released, _ *shop) []byte {
			p := s.prove(s.releases["toy"])
			p.Record = audit.Encode(f)
			return p.Encode()
		}, "record 1 is not in the log of 3 records"},
		"the proof of another model": {func(s *shop, f *audit.Released, _ *shop) []byte {
			f.Model = "tay"
			return s.prove(f).Encode()
		}, "what is proved is another record: released"},
		"the proof of another version": {func(s *shop, f *audit.Released, _ *shop) []byte {
			f.Version = 1
			return s.prove(f).Encode()
		}, "what is proved is another record: released"},
		"the proof of something else": {func(s *shop, _ *audit.Released, _ *shop) []byte {
			return s.prove(&audit.NodeRevoked{Node: "x"}).Encode()
		}, "what is proved is another record: node revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, dir := newParty(t, "test"), t.TempDir()
				s := newShop().open(p, "c1", "c2", "c3")
				stranger := newShop().open(newParty(t, "test"), "c1", "c2", "c3")
				old, good, bad := toyModel(t, "toy", 1), toyModel(t, "toy", 2), toyModel(t, "toy", 3)
				n := p.follower(s, dir, "c1")
				s.add(t, old, 1)
				n.follow(t.Context(), ref("toy", 1))
				_ = n.Close()

				s.add(t, good, 2)
				liar := s.service()
				honest := liar.release
				liar.release = func(*choirv1.ReleaseRequest) (*choirv1.Release, error) {
					lie := &audit.Released{Model: "toy", Version: 2, Job: "job", Variants: []audit.Variant{s.addAs(t, bad, "float32")}}
					answer := s.answer(lie)
					answer.Proof = c.lie(s, lie, stranger)
					return answer, nil
				}
				p.serve("c1", s.staff["c1"], p.root, liar)
				n = p.follower(s, dir, "c1")
				n.loadReleases()
				for range 3 {
					if n.follow(t.Context(), ref("toy", 2)) {
						t.Error("a lie is settled")
					}
				}
				serves(t, n, old, 1)
				if p.log.count("level=WARN", "a coordinator did not prove that the release was committed", "address=c1", c.say) != 1 ||
					p.log.count("level=WARN", "release not taken; the one before stays", c.say) != 1 {
					t.Errorf("log: %s", p.log)
				}
				n.client.prefer([]*choirv1.UploadAddress{{Address: "c1"}, {Address: "c2"}})
				if !n.follow(t.Context(), ref("toy", 2)) {
					t.Error("the honest coordinator is not asked")
				}
				serves(t, n, good, 2)

				liar.release = honest // with an old release, as it was committed
				s.add(t, old, 1)
				if n.follow(t.Context(), ref("toy", 1)) || p.log.count("version 2 is in use, a coordinator offers an older one") == 0 {
					t.Errorf("an older release is taken: %s", p.log)
				}
				serves(t, n, good, 2)
			})
		})
	}
}

// A node that no roster has reached cannot verify a release. It takes none, and does so once there is one.
func TestReleaseWaitsForTheRoster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := newParty(t, "test"), newShop()
		s.add(t, toyModel(t, "toy", 1), 1)
		n := p.follower(s, t.TempDir(), "c1")
		s.open(p, "c1")
		if n.follow(t.Context(), ref("toy", 1)) || p.log.count("level=WARN", "no roster of the coordinators came yet") == 0 {
			t.Errorf("log: %s", p.log)
		}
		n.enlist(rosterOf(1, s.staff, "c1"))
		if !n.follow(t.Context(), ref("toy", 1)) {
			t.Errorf("log: %s", p.log)
		}
		serves(t, n, toyModel(t, "toy", 1), 1)
	})
}

func TestReleaseThatCannotBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir, s := newParty(t, "test"), t.TempDir(), newShop()
		s.open(p, "c1")
		n := p.follower(s, dir, "c1")
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
