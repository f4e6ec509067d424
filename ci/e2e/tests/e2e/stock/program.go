// SPDX-License-Identifier: Apache-2.0 OR MIT

// A program in Go as the stock compiler makes it. It prints a line for each thing that holds.
package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

func check(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func main() {
	// Goroutines on several threads, and the collector.
	var wait sync.WaitGroup
	sums := make([]int, 64)
	for i := range sums {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			for round := 0; round < 50; round++ {
				memory := make([]byte, 100_000)
				memory[round] = byte(i)
				sums[i] += int(memory[round])
				runtime.Gosched()
			}
		}(i)
	}
	wait.Wait()
	total := 0
	for _, sum := range sums {
		total += sum
	}
	runtime.GC()
	fmt.Println("goroutines", total)

	// A fault becomes a panic that can be recovered from.
	func() {
		defer func() { fmt.Println("recovered:", recover() != nil) }()
		var nothing *int
		fmt.Println(*nothing)
	}()

	// A server and its client.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		check(err)
		w.Write(body)
	}))
	reader, writer := io.Pipe()
	go func() {
		writer.Write(make([]byte, 1<<20))
		writer.Close()
	}()
	response, err := http.Post("http://"+listener.Addr().String(), "text/plain", reader)
	check(err)
	hash := sha256.New()
	n, err := io.Copy(hash, response.Body)
	check(err)
	fmt.Printf("http %d %x\n", n, hash.Sum(nil)[:4])

	// Programs, and what they print.
	output, err := exec.Command("/bin/sh", "-c", "echo from a child; exit 3").Output()
	fmt.Print(string(output))
	fmt.Println(err)

	// Signals and timers.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	check(syscall.Kill(os.Getpid(), syscall.SIGUSR1))
	fmt.Println(<-signals)
	begin := time.Now()
	select {
	case <-time.After(50 * time.Millisecond):
	}
	fmt.Println("waited", time.Since(begin) >= 50*time.Millisecond)

	// Files.
	check(os.WriteFile("/tmp/lines", []byte("one\ntwo\n"), 0o600))
	file, err := os.Open("/tmp/lines")
	check(err)
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		fmt.Println(scanner.Text())
	}
	os.Exit(7)
}
