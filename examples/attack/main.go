// Command attack runs an experiment whose liars do what they like.
package main

import (
	"context"
	"fmt"
	"log"

	"choir.example/fedavg"
	"choir.example/simulate"
	"choir.example/simulate/attack"
)

// standstill sends what would undo the work of those who are honest.
type standstill struct{ attack.Honest }

// Forge implements attack.Attack. Examples stay as attack.Honest leaves them.
func (standstill) Forge(r *attack.Round) {
	for i := range r.Sent {
		r.Sent[i] = make([]float64, len(r.Own[i]))
		for _, honest := range r.Honest {
			for k, q := range honest {
				r.Sent[i][k] -= float64(q) / float64(len(r.Sent))
			}
		}
	}
}

func main() {
	quick, _ := simulate.BuiltinNamed("quick")
	quick.Partition.Kind = "iid" // rules tell liars apart by how they differ
	quick.Cohort.Nodes = 0       // all nodes, so that as many liars take part in each round
	quick.Fleet.Liars = attack.Settings{Nodes: 4}
	quick.Own.Attack = standstill{}
	quick.Robust = fedavg.RobustSettings{Rule: "trimmed-mean", F: 4}
	r, err := simulate.Run(context.Background(), quick.Experiment, simulate.RunConfig{Seed: 1})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("accuracy %.4f\n", r.Final.Accuracy)
}
