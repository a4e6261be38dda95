// Command partition runs an experiment whose examples are dealt in a way of its own.
package main

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"

	"choir.example/simulate"
	"choir.example/simulate/partition"
)

// halves gives the first node half of all examples, the next one half of the rest, and so on.
type halves struct{}

// Divide implements partition.Partitioner.
func (halves) Divide(x partition.Examples, nodes int, rng *rand.Rand) ([][]int32, error) {
	rest := make([]int32, len(x.Labels))
	for i, place := range rng.Perm(len(rest)) {
		rest[i] = int32(place)
	}
	parts := make([][]int32, nodes)
	for i := range parts[:nodes-1] {
		parts[i], rest = rest[:len(rest)/2], rest[len(rest)/2:]
	}
	parts[nodes-1] = rest
	return parts, nil
}

func main() {
	quick, _ := simulate.BuiltinNamed("quick")
	quick.Partition.Nodes, quick.Cohort.Nodes = 8, 4
	quick.Own.Partition = halves{}
	r, err := simulate.Run(context.Background(), quick.Experiment, simulate.RunConfig{Seed: 1})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("accuracy %.4f\n", r.Final.Accuracy)
}
