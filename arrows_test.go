package choir_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "choir.example/"

// arrows says what each room may import of ours. docs/architecture.md draws it; change both together.
var arrows = map[string][]string{
	"internal/canon":     {},
	"internal/seeds":     {"internal"},
	"internal/blob":      {"internal"},
	"internal/nearest":   {"internal"},
	"internal/plot":      {"internal"},
	"internal/lockdir":   {"internal"},
	"internal/leak":      {"internal"},
	"internal/rpc":       {"internal", "proto/choir/v1"},
	"internal/jobspec":   {"internal", "proto/choir/v1", "fedavg", "model", "model/codec", "model/data"},
	"model":              {"internal", "model/kernel", "model/codec", "model/data"},
	"model/kernel":       {"internal"},
	"model/codec":        {"internal", "model/kernel"},
	"model/data":         {"internal", "model/codec"},
	"model/compress":     {"internal", "model", "model/kernel", "model/codec", "model/data"},
	"proto/choir/v1":     {},
	"fedavg":             {"internal", "model", "model/codec", "model/kernel"},
	"privacy/seal":       {"internal"},
	"privacy/audit":      {"internal", "privacy/seal"},
	"coordinator/state":  {"internal", "model", "fedavg", "privacy", "proto"},
	"coordinator/web":    {"internal", "model", "privacy", "proto", "coordinator/state"},
	"coordinator":        {"internal", "model", "fedavg", "privacy", "proto", "coordinator/state", "coordinator/web"},
	"node":               {"internal", "model", "fedavg", "privacy", "proto"},
	"simulate/recount":   {"internal", "model", "fedavg", "privacy"},
	"simulate/attack":    {},
	"simulate/partition": {"internal"},
	"simulate/report":    {"internal", "simulate", "simulate/partition"},
	"simulate":           {"internal", "model", "fedavg", "privacy", "proto", "coordinator", "node", "simulate/recount", "simulate/partition", "simulate/attack"},
	"live":               {},
	"examples":           {},
	"examples/strategy":  {"fedavg", "simulate"},
	"examples/partition": {"simulate", "simulate/partition"},
	"examples/rule":      {"fedavg", "simulate"},
	"examples/attack":    {"fedavg", "simulate", "simulate/attack"},
	"cmd/choir":          {"internal", "model", "fedavg", "privacy", "proto", "coordinator", "coordinator/state", "node", "simulate", "simulate/partition", "simulate/report"},
}

// contained says which rooms may import a third party, by prefix of its import path.
var contained = map[string][]string{
	"github.com/hashicorp/raft":       {"coordinator"},
	"github.com/hashicorp/memberlist": {"coordinator"},
	"go.etcd.io/bbolt":                {"coordinator", "node"},
	"github.com/prometheus":           {"coordinator", "node"},
	"filippo.io/age":                  {"privacy/seal"},
	"golang.org/x/mod":                {"privacy/audit"},
	"golang.org/x/sys":                {"model/kernel"},
	"gonum.org/v1/gonum":              {"model/kernel", "simulate"},
	"github.com/alecthomas/kong":      {"cmd/choir"},
	"github.com/schollz/progressbar":  {"cmd/choir"},
	"go.yaml.in/yaml":                 {"cmd/choir"},
	"google.golang.org/grpc":          {"coordinator", "node", "simulate", "cmd/choir", "proto", "internal/rpc"},
	"golang.org/x/crypto":             {"privacy/seal"},
	"github.com/hashicorp/go-hclog":   {"coordinator"},
	"google.golang.org/protobuf":      {"internal/rpc", "coordinator", "coordinator/state", "node", "simulate", "cmd/choir", "proto"},
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// under reports whether path is room or below it.
func under(path, room string) bool { return path == room || strings.HasPrefix(path, room+"/") }

func TestArrows(t *testing.T) {
	for _, p := range listPackages(t) {
		room, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours {
			continue
		}
		allowed, known := arrows[room]
		if !known {
			t.Errorf("%s is in no row of the table", room)
		}
		for _, imported := range p.Imports {
			if path, ok := strings.CutPrefix(imported, module); ok && !anyUnder(path, allowed) {
				t.Errorf("%s imports %s against the table", room, path)
			}
			for third, rooms := range contained {
				if under(imported, third) && !anyUnder(room, rooms) {
					t.Errorf("%s imports %s, which stays in %v", room, imported, rooms)
				}
			}
		}
	}
}

// anyUnder reports whether the path is one of the rooms; a room of one word includes what is below it.
func anyUnder(path string, rooms []string) bool {
	for _, r := range rooms {
		if path == r || !strings.Contains(r, "/") && r != "coordinator" && r != "simulate" && under(path, r) {
			return true
		}
	}
	return false
}
