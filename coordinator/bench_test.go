package coordinator

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/internal/blob"
	"choir.example/model/codec"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"golang.org/x/sync/errgroup"
)

// What the two benchmarks move: ten nodes, a model of about a million parameters, updates that need four bytes each.
const benchNodes = 10

var benchHidden = []uint32{1000, 996}

// benchSize is the number of parameters of one input and those hidden layers.
const benchSize = 2*1000 + 1001*996 + 997

// benchVector is an update that no narrower width than four bytes holds.
func benchVector(i int) []int32 {
	v := make([]int32, benchSize)
	for k := range v {
		v[k] = int32((k*7919+i*104729)%(2*fedavg.MaxQ+1)) - fedavg.MaxQ
	}
	v[0] = fedavg.MaxQ // 2^23 does not fit three bytes
	return v
}

// BenchmarkRound is a round in which nobody computes: each node polls, fetches the model, seals an update, uploads it and
// waits for its receipt; the coordinator verifies, spools, folds, commits, makes the next model and closes the round.
// Mutual TLS, signatures, age, fsync and the raft log are all on; one coordinator, loopback.
func BenchmarkRound(b *testing.B) {
	f := startFederation(b, 1, nil, Observer{})
	var names []string
	for i := range benchNodes {
		names = append(names, fmt.Sprintf("n%d", i))
	}
	nodes := f.enrol(names...)
	f.submit(testJob(b, 1_000_000, benchHidden...))
	f.statistics(nodes)
	var clients []*benchNode
	for i, n := range nodes {
		clients = append(clients, &benchNode{testNode: n, client: n.at("c1"), vector: benchVector(i)})
	}
	b.SetBytes(benchNodes * 8 * int64(benchSize))
	rounds := uint64(0)
	for b.Loop() {
		rounds++
		var wg sync.WaitGroup
		for _, n := range clients {
			wg.Go(func() { n.round(rounds) })
		}
		wg.Wait()
		if b.Failed() {
			b.FailNow()
		}
		f.round("c1", rounds, state.PhaseClosed)
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/round")
}

// benchNode is a node with its connection and an update ready.
type benchNode struct {
	*testNode
	client choirv1.NodesClient
	vector []int32
}

// round answers one round, from the poll to the receipt.
func (n *benchNode) round(number uint64) {
	if err := n.try(number); err != nil {
		n.f.t.Errorf("%s, round %d: %v", n.name, number, err)
	}
}

func (n *benchNode) try(number uint64) error {
	ctx := n.f.t.Context()
	reply, err := n.client.Poll(ctx, &choirv1.PollRequest{Roster: 1, Done: n.done, WaitMs: 20_000})
	if err != nil {
		return err
	}
	t := reply.Task
	if t == nil || t.Key.Round != number {
		return fmt.Errorf("task %v", t.GetKey())
	}
	n.done = t.Key
	if err := fetchModel(ctx, n.client, t.Model); err != nil {
		return err
	}
	p := n.payload(t, 0)
	p.Vectors = [][]int32{n.vector}
	envelope, digest := n.sealed(t, p)
	out, err := uploadTo(ctx, n.client, &choirv1.UploadHeader{Key: t.Key, Update: digest[:], Size: uint64(len(envelope))}, envelope)
	if err == nil && out.GetReceipt() == nil {
		err = fmt.Errorf("no receipt but %v", out)
	}
	return err
}

// fetchModel downloads a blob and checks its id, as a node does.
func fetchModel(ctx context.Context, client choirv1.NodesClient, id []byte) error {
	stream, err := client.GetBlob(ctx, &choirv1.BlobRequest{Id: id})
	if err != nil {
		return err
	}
	body, _, err := receiveChunks(stream.Recv)
	if err != nil {
		return err
	}
	if got := blob.ID(body); !bytes.Equal(got[:], id) {
		return fmt.Errorf("model %x came as %x", id, got)
	}
	return nil
}

// BenchmarkFloor moves the same bytes through the same primitives in a bare loop, without protocol, log or checks: the
// model to all clients over TLS, hashed; their updates hashed, sealed, sent over TLS, written and synced, opened, hashed,
// unpacked and folded; their sum sealed and synced; the next model hashed and synced.
func BenchmarkFloor(b *testing.B) {
	for _, c := range []struct {
		name        string
		nodes, size int
		vector      func(i int) []int32
	}{
		{"10x1M", benchNodes, benchSize, benchVector},
		{"50x2nn", 50, size2NN, narrowVector}, // BenchmarkFidelity of package simulate
	} {
		b.Run(c.name, func(b *testing.B) {
			fl := newFloor(b, c.nodes, c.size, c.vector)
			b.SetBytes(int64(c.nodes) * 8 * int64(c.size))
			for b.Loop() {
				if err := fl.round(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/round")
		})
	}
}

// size2NN is the number of parameters of the perceptron 784-200-200-10.
const size2NN = 785*200 + 201*200 + 201*10

// narrowVector is an update of that perceptron, as wide as one of a few steps: three bytes.
func narrowVector(i int) []int32 {
	v := make([]int32, size2NN)
	for k := range v {
		v[k] = int32((k*7919+i*104729)%2_000_001) - 1_000_000
	}
	return v
}

type floor struct {
	dir     string
	nodes   int
	key     *seal.EpochKey
	model   []byte
	updates [][]int32
	shape   fedavg.Shape
	clients []net.Conn
	servers []net.Conn
}

func newFloor(b *testing.B, nodes, size int, vector func(i int) []int32) *floor {
	b.Helper()
	key, err := seal.NewEpochKey(1)
	if err != nil {
		b.Fatal(err)
	}
	fl := &floor{dir: b.TempDir(), nodes: nodes, key: key, model: make([]byte, 4*size), shape: fedavg.Shape{Vectors: []int{size}, WeightCap: 1000}}
	server, client := floorTLS(b)
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	for i := range nodes {
		fl.updates = append(fl.updates, vector(i))
		accepted := make(chan net.Conn, 1)
		go func() {
			c, err := l.Accept()
			if err == nil {
				err = c.(*tls.Conn).HandshakeContext(b.Context())
			}
			if err != nil {
				b.Error(err)
			}
			accepted <- c
		}()
		c, err := tls.Dial("tcp", l.Addr().String(), client)
		if err != nil {
			b.Fatal(err)
		}
		fl.clients, fl.servers = append(fl.clients, c), append(fl.servers, <-accepted)
		b.Cleanup(func() { _ = c.Close() })
	}
	return fl
}

// floorTLS is the configuration of the two ends, as in a federation.
func floorTLS(b *testing.B) (server, client *tls.Config) {
	b.Helper()
	root, err := seal.NewRoot("floor", time.Now(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	f := &testFederation{t: b, root: root}
	cred := f.certify(seal.RoleCoordinator, "c1")
	anybody := func(seal.Identity) error { return nil }
	return seal.ServerTLS(cred, seal.LineageFrom(root.Certificate()), time.Now, []string{protoGRPC}, anybody),
		seal.ClientTLS(f.certify(seal.RoleOperator, "o1"), root.Certificate(), time.Now, protoGRPC, nil)
}

// round is one round of the floor; clients and server run side by side.
func (f *floor) round() error {
	var g errgroup.Group
	partial := make([]*fedavg.Sum, f.nodes)
	for i := range f.nodes {
		g.Go(func() error { return f.client(i) })
		g.Go(func() (err error) {
			partial[i], err = f.serve(i)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	sum := partial[0]
	for _, p := range partial[1:] {
		if err := sum.Merge(p); err != nil {
			return err
		}
	}
	sealed, err := seal.SealTo(sum.Encode(), []string{f.key.Recipient()})
	if err != nil {
		return err
	}
	_ = sha256.Sum256(f.model)
	return errors.Join(f.write("sum", sealed), f.write("model", f.model))
}

// client receives the model and sends an update.
func (f *floor) client(i int) error {
	body := make([]byte, len(f.model))
	if _, err := io.ReadFull(f.clients[i], body); err != nil {
		return err
	}
	_ = sha256.Sum256(body)
	packed := codec.PackInts(nil, f.updates[i])
	_ = sha256.Sum256(packed)
	sealed, err := seal.SealTo(packed, []string{f.key.Recipient()})
	if err != nil {
		return err
	}
	return errors.Join(binary.Write(f.clients[i], binary.LittleEndian, uint64(len(sealed))), writeAll(f.clients[i], sealed))
}

// serve sends the model to a client and takes its update.
func (f *floor) serve(i int) (*fedavg.Sum, error) {
	if err := writeAll(f.servers[i], f.model); err != nil {
		return nil, err
	}
	var size uint64
	if err := binary.Read(f.servers[i], binary.LittleEndian, &size); err != nil {
		return nil, err
	}
	sealed := make([]byte, size)
	if _, err := io.ReadFull(f.servers[i], sealed); err != nil {
		return nil, err
	}
	if err := f.write(fmt.Sprintf("update-%d", i), sealed); err != nil {
		return nil, err
	}
	packed, err := seal.OpenFrom(sealed, f.key)
	if err != nil {
		return nil, err
	}
	_ = sha256.Sum256(packed)
	v, err := codec.UnpackInts[int32](int(packed[0]), packed[1:])
	if err != nil {
		return nil, err
	}
	sum := fedavg.NewSum(f.shape)
	return sum, sum.Add(&fedavg.Update{Vectors: [][]int32{v}, Weight: 2})
}

func writeAll(w io.Writer, body []byte) error {
	_, err := w.Write(body)
	return err
}

// write writes a file and syncs it.
func (f *floor) write(name string, body []byte) error {
	file, err := os.Create(filepath.Join(f.dir, name))
	if err != nil {
		return err
	}
	_, err = file.Write(body)
	return errors.Join(err, file.Sync(), file.Close())
}
