package audit

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"
	"time"

	"choir.example/privacy/seal"
)

// joins are the records of a machine that asks to become a coordinator and is approved. Its key is kept.
func (f *federation) joins(name string) []Record {
	f.t.Helper()
	key, issuing := f.key(), f.key()
	f.keys[name] = key
	public, issues := key.Public().(ed25519.PublicKey), issuing.Public().(ed25519.PublicKey)
	issuer, err := f.root.CertifyIssuer(name, issues, noon, month)
	if err != nil {
		f.t.Fatal(err)
	}
	token := "t-" + name + string(public[:4])
	c := Coordinator{Name: name, Address: name + ":2", Chain: f.certify(seal.RoleCoordinator, name, key, month)}
	f.chains[name] = c.Chain
	return []Record{
		&TokenCreated{token, "coordinator", 1}, &JoinRequested{token, name, c.Address, public, issues, noon.UnixMilli()},
		&CoordinatorApproved{c, issuer, noon.UnixMilli()},
	}
}

// sequel goes on from story: the finished job gets another round, is paused, resumed, stopped in its evaluation and
// continued to its release; d becomes a coordinator, c is removed and comes back with other keys; a node, a token and a
// person are revoked, and a request to join goes with its token.
func (f *federation) sequel() []Record {
	records := append(f.story(), &JobControlled{"j", "continue", 1, dig(6)})
	more := f.round(3, 1, roundTraining, "m n", "o")
	more[0].(*RoundOpened).Model = made(1)
	more[0].(*RoundOpened).Goal = 2 // o's batch below comes to a round that is full
	records = append(records, slices.Delete(more, 2, 3)...)
	for _, r := range records[len(records)-3:] {
		switch r := r.(type) {
		case *RoundCut:
			r.Count, r.Weight = 2, 3
		case *Charged:
			r.Nodes = 2
		case *RoundClosed:
			r.Count, r.Weight, r.Sum = 2, 3, dig(0x70)
		}
	}
	records = append(records, &JobControlled{"j", "pause", 0, dig(6)}, &JobControlled{"j", "resume", 0, dig(6)})
	test := f.round(4, 1, roundEvaluation, "m n")
	records = append(records, test[0], &JobControlled{"j", "stop", 0, dig(6)})
	records = append(records, test[1:]...)
	records = append(records, &JobEnded{"j", "stopped", ""}, &JobControlled{"j", "continue", 0, dig(6)},
		&Released{"model", 2, "j", 3, []Variant{{"float32", made(3), 128, true, ""}, {"int8", candidate, 32, true, ""}}},
		&JobEnded{"j", "finished", ""})
	records = append(records, f.joins("d")...)
	records = append(records, f.epoch("d", 1), &CoordinatorRemoved{"c"})
	records = append(records, f.joins("c")...)
	records = append(records, f.epoch("c", 1), &CoordinatorRemoved{"b"})
	records = append(records, f.joins("e")[:2]...)
	records = append(records, &TokenRevoked{records[len(records)-1].(*JoinRequested).Token}, &TokenCreated{"t-p", "node", 1}, &TokenRevoked{"t-p"})
	return append(records, &NodeRevoked{"o"}, &PersonRevoked{dig(7)})
}

func TestTheSequelIsLawful(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	records := f.sequel()
	if r := f.verify(f.bundle(records, "a", "c", "d")); !r.OK || r.Rounds != 5 {
		t.Errorf("%+v", r)
	}
	for n := 1; n <= len(records); n++ { // every beginning, too
		if _, err := replay(encoded(records[:n])); err != nil {
			t.Errorf("the first %d records: %v", n, err)
		}
	}
}

// A head is judged by the coordinators as of the head, and by nobody who was one before or with another certificate.
func TestSignaturesAreOfTheCoordinatorsAsOfTheHead(t *testing.T) {
	for _, c := range []struct {
		signers string
		spoil   func(f *federation)
		want    string // empty if it verifies
	}{
		{"a c d", nil, ""},
		{"a d", nil, ""},
		{"d", nil, "1 of 3 coordinators signed, a majority is 2"},
		{"a b", nil, "signature of b: it is not by a coordinator as of the head"},
		{"a b d", nil, "signature of b: it is not by a coordinator as of the head"},
		{"a e", nil, "signature of e: it is not by a coordinator as of the head"},
		{"a c", func(f *federation) { f.chains["c"] = f.genesis.Coordinators[2].Chain }, "signature of c: its certificate is not that in the records"},
		{"a c", func(f *federation) { f.keys["c"] = f.firstKeys["c"] }, "signature of c: signature does not verify"},
	} {
		f := found(t, 1, "a", "b", "c")
		records := f.sequel()
		if c.spoil != nil {
			c.spoil(f)
		}
		names, details := failed(f.verify(f.bundle(records, strings.Fields(c.signers)...)))
		if c.want == "" && len(names) > 0 || c.want != "" && (!slices.Equal(names, []string{"signatures"}) || details != c.want) {
			t.Errorf("signed by %s: failed are %v: %s; want %q", c.signers, names, details, c.want)
		}
	}
}

func TestUnlawfulSequelIsFound(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	join := nth[*JoinRequested]
	approve := nth[*CoordinatorApproved]
	control := nth[*JobControlled]
	for _, c := range []struct {
		name   string
		change func(s *tale)
		want   string
	}{
		// Tokens and revocations.
		{"token for a person", func(s *tale) { nth[*TokenCreated](s, 0).Role = "operator" }, `token t-m is for role "operator": only nodes and coordinators come by token`},
		{"node by a coordinator's token", func(s *tale) { nth[*TokenCreated](s, 0).Role = "coordinator" }, "node m enrolled with token t-m, which is for a coordinator"},
		{"coordinator by a node's token", func(s *tale) { nth[*TokenCreated](s, 3).Role = "node" }, "coordinator d asked to join with token "},
		{"token revoked that never was", func(s *tale) { s.add(&TokenRevoked{"t"}) }, "token t was revoked, which was never created"},
		{"token revoked twice", func(s *tale) { s.add(&TokenRevoked{"t-p"}) }, "token t-p was revoked, which was never created or was revoked before"},
		{"enrolled with a revoked token", func(s *tale) { s.add(&Enrolled{"p", digest(9), "t-p"}) }, "node p enrolled with token t-p, which was revoked"},
		{"enrolled with a revoked key", func(s *tale) {
			s.add(&TokenCreated{"t-q", "node", 1}, &Enrolled{"q", nth[*Enrolled](s, 2).Key, "t-q"})
		}, "node q enrolled with a key that was revoked"},
		{"node revoked that never enrolled", func(s *tale) { s.add(&NodeRevoked{"p"}) }, "node p was revoked, which never enrolled"},
		{"node revoked twice", func(s *tale) { s.add(&NodeRevoked{"o"}) }, "node o was revoked, which never enrolled or was revoked before"},
		{"revoked node in a cohort", func(s *tale) { s.insertBefore(nth[*RoundOpened](s, 4), &NodeRevoked{"o"}) }, "round 3 of job j: its cohort names node o, which is not enrolled, or revoked"},
		{"revoked node counted", func(s *tale) { s.insertAfter(nth[*RoundOpened](s, 4), &NodeRevoked{"n"}) }, "round 3 of job j counts node n: it was revoked"},
		{"person revoked twice", func(s *tale) { s.add(&PersonRevoked{dig(7)}) }, "was revoked twice"},

		// Coordinators.
		{"coordinator asks to join", func(s *tale) { join(s, 0).Name = "a" }, "coordinator a asked to join, and is one or asked before"},
		{"asked twice", func(s *tale) {
			again := copyOf(join(s, 2))
			s.insertAfter(join(s, 2), again)
		}, "coordinator e asked to join, and is one or asked before"},
		{"one key for two", func(s *tale) { j := join(s, 0); j.IssuerKey = j.Key }, "coordinator d asked to join without a key of its own for its issuer"},
		{"half an issuer key", func(s *tale) { j := join(s, 0); j.IssuerKey = j.IssuerKey[:16] }, "coordinator d asked to join without a key of its own for its issuer"},
		{"half a key", func(s *tale) { j := join(s, 0); j.Key = j.Key[:16] }, "and a key of 16 bytes"},
		{"asked with a token that another used", func(s *tale) { join(s, 1).Token = join(s, 0).Token }, "coordinator c asked to join with token "},
		{"approved without asking", func(s *tale) { s.drop(join(s, 0)) }, "coordinator d was approved, which did not ask to join from d:2"},
		{"approved at another address", func(s *tale) { approve(s, 0).Coordinator.Address = "d:3" }, "coordinator d was approved, which did not ask to join from d:3"},
		{"approved after the token was revoked", func(s *tale) { s.insertAfter(join(s, 0), &TokenRevoked{join(s, 0).Token}) }, "coordinator d was approved, which did not ask"},
		{"approved twice", func(s *tale) { s.insertAfter(approve(s, 0), copyOf(approve(s, 0))) }, "coordinator d was approved, which did not ask"},
		{"approved with another's certificate", func(s *tale) { approve(s, 0).Coordinator.Chain = approve(s, 1).Coordinator.Chain }, "its certificate is of coordinator c, or for another key"},
		{"approved for another key", func(s *tale) {
			approve(s, 0).Coordinator.Chain = f.certify(seal.RoleCoordinator, "d", f.keys["a"], month)
		}, "its certificate is of coordinator d, or for another key than it asked with"},
		{"approved as an operator", func(s *tale) {
			approve(s, 0).Coordinator.Chain = f.certify(seal.RoleOperator, "d", f.keys["d"], month)
		}, "its certificate is of operator d, or for another key"},
		{"approved before its certificate", func(s *tale) { approve(s, 0).TimeMS = noon.Add(-time.Hour).UnixMilli() }, "expired or not valid yet"},
		{"approved without an issuer", func(s *tale) { approve(s, 0).Issuer = nil }, "coordinator d was approved: its issuing certificate: certificate is not of this federation"},
		{"approved with another's issuer", func(s *tale) { approve(s, 0).Issuer = approve(s, 1).Issuer }, "its issuing certificate is for another key than it asked with"},
		{"approved with an issuer that is none", func(s *tale) { a := approve(s, 0); a.Issuer = a.Coordinator.Chain[0] }, "its issuing certificate: d is not an issuer with its constraint"},
		{"removed coordinator approved again without the root", func(s *tale) {
			again := copyOf(join(s, 0))
			again.Token = "t-again"
			s.add(&CoordinatorRemoved{"d"}, &TokenCreated{"t-again", "coordinator", 1}, again, copyOf(approve(s, 0)))
		}, "coordinator d was approved with a certificate that was revoked"},
		{"removed founder approved again without the root", func(s *tale) {
			again, d := copyOf(join(s, 0)), copyOf(approve(s, 0)) // with the issuer of d
			again.Token, again.Name, again.Key = "t-again", "b", f.firstKeys["b"].Public().(ed25519.PublicKey)
			d.Coordinator = Coordinator{Name: "b", Address: again.Address, Chain: f.genesis.Coordinators[1].Chain}
			s.add(&TokenCreated{"t-again", "coordinator", 1}, again, d)
		}, "coordinator b was approved with a certificate that was revoked"},
		{"stranger removed", func(s *tale) { s.add(&CoordinatorRemoved{"x"}) }, "coordinator x was removed, which is none or the last one"},
		{"removed twice", func(s *tale) { s.add(&CoordinatorRemoved{"b"}) }, "coordinator b was removed, which is none or the last one"},
		{"last one removed", func(s *tale) {
			s.add(&CoordinatorRemoved{"c"}, &CoordinatorRemoved{"d"}, &CoordinatorRemoved{"a"})
		}, "coordinator a was removed, which is none or the last one"},
		{"epoch of a removed coordinator", func(s *tale) { s.add(f.epoch("b", 2)) }, "epoch key of b, which is no coordinator"},
		{"batch of a removed coordinator", func(s *tale) { s.insertAfter(nth[*RoundOpened](s, 4), &CoordinatorRemoved{"a"}) }, "round 3 of job j accepts a batch of a, which is no coordinator"},

		// Jobs.
		{"control of no job", func(s *tale) { s.add(&JobControlled{"k", "stop", 0, dig(6)}) }, `job controlled: there is no job "k"`},
		{"unknown action", func(s *tale) { control(s, 1).Action = "sing" }, `job j was told to "sing"`},
		{"paused twice", func(s *tale) { control(s, 2).Action = "pause" }, `job j was told to "pause" for 0 rounds, which it could not do then`},
		{"resumed without a pause", func(s *tale) { s.drop(control(s, 1)) }, `job j was told to "resume"`},
		{"paused for two rounds", func(s *tale) { control(s, 1).Rounds = 2 }, `job j was told to "pause" for 2 rounds`},
		{"stopped twice", func(s *tale) { s.insertAfter(control(s, 3), copyOf(control(s, 3))) }, `job j was told to "stop"`},
		{"stopped after its end", func(s *tale) { s.add(copyOf(control(s, 3))) }, `job j was told to "stop"`},
		{"finished job continued for nothing", func(s *tale) { control(s, 0).Rounds = 0 }, `job j was told to "continue" for 0 rounds`},
		{"continued while it runs", func(s *tale) { s.insertAfter(control(s, 0), copyOf(control(s, 0))) }, `job j was told to "continue" for 1 rounds`},
		{"failed job continued", func(s *tale) { nth[*JobEnded](s, 0).State = "failed" }, `job j was told to "continue" for 1 rounds`},
		{"specification changed by a pause", func(s *tale) { control(s, 1).Spec = dig(9) }, `job j was told to "pause" for 0 rounds; more rounds change its specification`},
		{"more rounds by the same specification", func(s *tale) { control(s, 0).Spec = dig(1) }, `job j was told to "continue" for 1 rounds; more rounds change its specification`},
		{"round of a paused job", func(s *tale) { s.drop(control(s, 2)) }, "round 4 of job j opened, which was paused or is to stop"},
		{"round of a job that is to stop", func(s *tale) {
			stop := control(s, 3)
			s.drop(stop)
			s.insertBefore(nth[*RoundOpened](s, 5), stop)
		}, "round 4 of job j opened, which was paused or is to stop"},
		{"stopped, and nobody asked", func(s *tale) { s.drop(control(s, 3)) }, "job j stopped, and nobody asked for it"},
		{"stopped with an open round", func(s *tale) {
			end := nth[*JobEnded](s, 1)
			s.drop(end)
			s.insertAfter(control(s, 3), end)
		}, "job ended: round 4 of job j is still open"},
		{"finished instead of stopped", func(s *tale) { nth[*JobEnded](s, 1).State = "finished" }, "job j finished, which was paused or is to stop"},
		{"released while paused", func(s *tale) { s.insertBefore(nth[*Released](s, 1), &JobControlled{"j", "pause", 0, dig(6)}) }, "job j released while it was paused"},
		{"released instead of stopped", func(s *tale) { s.drop(nth[*JobEnded](s, 1)); s.drop(control(s, 4)) }, "job j released while it was paused or is to stop"},
		{"released again without another round", func(s *tale) {
			s.insertBefore(nth[*RoundOpened](s, 4), &Released{"model", 2, "j", 1, nth[*Released](s, 0).Variants})
		}, "job j released twice"},
		{"evaluation's number used again", func(s *tale) { nth[*RoundOpened](s, 4).Round = 2 }, "round 2 attempt 1 of job j opened, its next is round 3 attempt 1"},
		{"batch beyond the goal", func(s *tale) {
			s.insertBefore(nth[*RoundCut](s, 3), &BatchAccepted{"j", 3, 1, dig(9), dig(9), "a", []Accepted{{"o", dig(9), 1}}})
		}, "round 3 of job j accepts a batch beyond its goal of 2"},
	} {
		f.keys = map[string]ed25519.PrivateKey{"a": f.firstKeys["a"], "b": f.firstKeys["b"], "c": f.firstKeys["c"]}
		s := &tale{f.sequel()}
		c.change(s)
		if _, err := replay(encoded(s.records)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
}

// An evaluation that was not finished when its job was stopped is left behind when the job gets more rounds.
func TestMoreRoundsLeaveAnEvaluationBehind(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	s := &tale{f.story()}
	for _, r := range []Record{nth[*RoundCut](s, 2), nth[*Charged](s, 2), nth[*Released](s, 0), nth[*JobEnded](s, 0)} {
		s.drop(r)
	}
	last := nth[*RoundClosed](s, 2)
	s.insertBefore(last, &JobControlled{"j", "stop", 0, dig(1)}, &RoundAbandoned{"j", 2, 1, "too few"}, &JobEnded{"j", "stopped", ""},
		&JobControlled{"j", "continue", 1, dig(6)})
	s.drop(last)
	next := f.round(3, 1, roundTraining, "m n")
	next[0].(*RoundOpened).Model = made(1)
	if _, err := replay(encoded(append(s.records, next...))); err != nil {
		t.Error(err)
	}
	if _, err := replay(encoded(append(s.records, f.round(2, 2, roundEvaluation, "m n")...))); err == nil {
		t.Error("the evaluation went on")
	}
}

func (f *federation) roster(signers ...string) Roster {
	r := Roster{Cluster: "shop", Version: 7, Coordinators: slices.Clone(f.genesis.Coordinators)}
	r.resign(f, signers...)
	return r
}

func (r *Roster) resign(f *federation, signers ...string) {
	r.Signatures = nil
	for _, s := range signers {
		r.Signatures = append(r.Signatures, r.Sign(s, f.keys[s]))
	}
}

func TestRoster(t *testing.T) {
	f, other := found(t, 1, "a", "b", "c"), found(t, 2, "a", "b", "c")
	for _, c := range []struct {
		name   string
		change func(r *Roster)
		want   string
	}{
		{"all", func(*Roster) {}, ""},
		{"a majority", func(r *Roster) { r.resign(f, "a", "c") }, ""},
		{"one", func(r *Roster) { r.resign(f, "a") }, "roster: 1 of 3 coordinators signed, a majority is 2"},
		{"nobody", func(r *Roster) { r.Signatures = nil }, "roster: 0 of 3 coordinators signed"},
		{"nobody in it", func(r *Roster) { r.Coordinators, r.Signatures = nil, nil }, "roster: 0 of 0 coordinators signed, a majority is 1"},
		{"one twice", func(r *Roster) { r.resign(f, "a", "a") }, "signers are not in order, or one signed twice"},
		{"a coordinator twice", func(r *Roster) { r.Coordinators[1] = r.Coordinators[0]; r.resign(f, "a") }, "its coordinators are not a sorted set"},
		{"a stranger", func(r *Roster) { r.Signatures = append(r.Signatures, Signature{Signer: "x"}) }, "signature of x: it is not by a coordinator of the roster"},
		{"another version", func(r *Roster) { r.Version++ }, "signature of a: signature does not verify"},
		{"another address", func(r *Roster) { r.Coordinators[1].Address = "x:1" }, "signature of a: signature does not verify"},
		{"another federation", func(r *Roster) { r.Cluster = "stall" }, `roster of federation "stall", not "shop"`},
		{"another root", func(r *Roster) { *r = other.roster("a", "b", "c") }, "signature of a: certificate is not of this federation"},
		{"a person's certificate", func(r *Roster) {
			r.Coordinators[0].Chain = f.certify(seal.RoleOperator, "a", f.keys["a"], month)
			r.resign(f, "a", "b", "c")
		}, "signature of a: its certificate is of operator a"},
		{"another's certificate", func(r *Roster) {
			r.Coordinators[0].Chain = f.certify(seal.RoleCoordinator, "b", f.keys["a"], month)
			r.resign(f, "a", "b", "c")
		}, "signature of a: its certificate is of coordinator b"},
	} {
		r := f.roster("a", "b", "c")
		c.change(&r)
		err := r.Verify(f.root.Certificate(), noon)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := f.roster("a", "b").Verify(f.root.Certificate(), noon.Add(2*month)); err == nil {
		t.Error("signed with certificates that have expired: no error")
	}
}

// A removed coordinator can make a roster of itself, and nobody who holds one takes it.
func TestARosterFollowsTheOneHeld(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	held, alone := f.roster("a", "b", "c"), f.roster()
	alone.Version, alone.Coordinators = 99, alone.Coordinators[2:]
	alone.resign(f, "c")
	if err := alone.Verify(f.root.Certificate(), noon); err != nil {
		t.Fatal(err)
	}
	if alone.SignedByMajorityOf(held) {
		t.Error("one of three took over")
	}
	next := f.roster()
	next.Version, next.Coordinators = 8, next.Coordinators[:2]
	next.resign(f, "a", "b")
	if !next.SignedByMajorityOf(held) {
		t.Error("two of three could not remove the third")
	}
	key := f.keys["c"].Public().(ed25519.PublicKey)
	if !held.Lists("c", key) || next.Lists("c", key) || held.Lists("b", key) {
		t.Error("who is listed")
	}
	next.Coordinators[0].Chain = f.certify(seal.RoleCoordinator, "a", f.keys["b"], 2*month)
	if next.SignedByMajorityOf(held) {
		t.Error("a signer with another key counts for the one before")
	}
	next.Coordinators[0].Chain = f.certify(seal.RoleCoordinator, "a", f.keys["a"], 2*month)
	if !next.SignedByMajorityOf(held) {
		t.Error("a signer whose certificate was renewed does not count")
	}
}
