/* SPDX-License-Identifier: MIT */
/*
 * Requests of the devices /cap/chN (messages between cVMs), /cap/cfN (memory of another cVM as a file) and /cap/cgN (doorbells
 * with a counter).
 *
 * State belongs to the device node, not to the open file: it survives close() and ends with CAP_STREAM_RESET,
 * CAP_FILE_REVOKE, CAP_BELL_RESET, or with the cVM. What belongs to a program ends with it: its queued buffers are taken back, and so are the
 * ranges of its memory that are published.
 *
 * A receiver, in full:
 *
 *	static char buffer[4096];
 *
 *	int fd = open("/cap/ch1", O_RDWR);
 *	ioctl(fd, CAP_STREAM_SET_SIZE, (int)sizeof(buffer));
 *	ioctl(fd, CAP_STREAM_REG_BUF, buffer);
 *	ioctl(fd, CAP_STREAM_ADV, "key1");
 *	for (;;) {
 *		if (ioctl(fd, CAP_STREAM_WAIT, 0) < 0)
 *			break;
 *		puts(buffer);
 *		ioctl(fd, CAP_STREAM_REG_BUF, buffer);
 *	}
 *
 * and its sender:
 *
 *	int fd = open("/cap/ch2", O_RDWR);
 *	ioctl(fd, CAP_STREAM_PRB, "key1");
 *	write(fd, "hello", 6);
 */
#ifndef CAPSTREAM_H
#define CAPSTREAM_H

#ifdef __KERNEL__
#include <linux/ioctl.h>
#include <linux/types.h>
#else
#include <stdint.h>
#include <sys/ioctl.h>
#endif

/* Bytes of a key; a shorter key ends with a NUL byte, a key of ten bytes needs none. An empty key is EINVAL. */
#define CAP_KEY_LEN 10

/* Major numbers; minors begin with 1. */
#define CAP_FILE_MAJOR 43
#define CAP_STREAM_MAJOR 45
#define CAP_BELL_MAJOR 50

/*
 * Streams.
 *
 * write() delivers one message. It waits while the receiver has no buffer, and while this cVM has sent what it may in a second; with O_NONBLOCK it is
 * EAGAIN then, and poll() tells POLLOUT of the former only. EPIPE when the receiver was reset or its cVM ended: CAP_STREAM_PRB connects to the
 * next one. ETIMEDOUT when the receiver's kernel did not take the message in time, which ends that cVM: later writes are EPIPE. ECANCELED
 * when this endpoint was reset meanwhile.
 */
#define CAP_STREAM_TYPE 0xE4

/* Receive buffers that can be queued at an endpoint. */
#define CAP_STREAM_BUFFERS 64
/* Bytes of the largest receive buffer. */
#define CAP_STREAM_MAX_SIZE (64 << 20)

/* How an endpoint waits, argument of CAP_STREAM_SET_MODE. */
#define CAP_STREAM_SLEEP 0    /* sleep; the default */
#define CAP_STREAM_SPIN 1     /* spin on the processor */
#define CAP_STREAM_ADAPTIVE 2 /* spin a little, then sleep */

/* int, by value: bytes of the buffers registered from now on. EINVAL if <= 0 or above CAP_STREAM_MAX_SIZE. */
#define CAP_STREAM_SET_SIZE _IOW(CAP_STREAM_TYPE, 0x01, int)
/*
 * char[CAP_KEY_LEN]: publish this endpoint as the receiver of the key. EADDRINUSE if another endpoint has it, EACCES if this cVM may not
 * publish it.
 */
#define CAP_STREAM_ADV _IOW(CAP_STREAM_TYPE, 0x02, int)
/*
 * char[CAP_KEY_LEN]: connect this endpoint as a sender. Waits up to 30 s for the key to exist, then ETIMEDOUT;
 * with O_NONBLOCK EAGAIN at once. EACCES, at once, if this cVM may not use the key.
 */
#define CAP_STREAM_PRB _IOW(CAP_STREAM_TYPE, 0x03, int)
/* int, by value: one of CAP_STREAM_SLEEP, CAP_STREAM_SPIN, CAP_STREAM_ADAPTIVE. */
#define CAP_STREAM_SET_MODE _IOW(CAP_STREAM_TYPE, 0x04, int)
/*
 * Pointer, by value: queue a receive buffer. EINVAL before CAP_STREAM_SET_SIZE; ENOBUFS when CAP_STREAM_BUFFERS are
 * queued here, or as many at all endpoints as this cVM may have; EFAULT if it is not writable memory of the caller; EBUSY if it overlaps a queued one.
 */
#define CAP_STREAM_REG_BUF _IOW(CAP_STREAM_TYPE, 0x05, int)
/*
 * Argument ignored: wait for the next filled buffer, in the order of delivery; returns 0. EAGAIN with O_NONBLOCK;
 * ECANCELED when the endpoint is reset meanwhile.
 */
#define CAP_STREAM_WAIT _IOW(CAP_STREAM_TYPE, 0x06, int)
/* As CAP_STREAM_WAIT, spinning whatever the mode. */
#define CAP_STREAM_SPIN_READ _IOW(CAP_STREAM_TYPE, 0x07, int)

/* A message in a buffer that was registered with CAP_STREAM_REG_BUF. */
struct cap_stream_message {
	uint64_t address;  /* of the buffer, as it was registered */
	uint64_t length;   /* bytes of the message; the rest of the buffer is as it was */
	uint64_t sequence; /* number of the message at this endpoint since its last reset, from 0 */
	uint64_t sender;   /* names the connection that sent it; no two live ones have the same */
};

/* Counters of an endpoint since its last reset. */
struct cap_stream_stats {
	uint64_t received;       /* messages that senders completed */
	uint64_t received_bytes; /* bytes of those */
	uint64_t taken;          /* messages handed to the program by WAIT, WAIT_INFO, SPIN_READ or read() */
	uint64_t sent;           /* messages this endpoint delivered to its peer */
	uint64_t sent_bytes;     /* bytes of those */
	uint64_t no_buffer;      /* times a sender found no buffer here */
	uint64_t too_long;       /* times a sender's message did not fit the oldest buffer here */
	uint64_t faults;         /* times a sender's memory could not be read */
	uint64_t notifications;  /* interrupts that senders asked for */
	uint64_t sleeps;         /* times a task of this cVM slept at this endpoint */
	uint32_t queued;         /* buffers that wait for a message now */
	uint32_t filled;         /* messages that wait for the program now */
	uint32_t advertised;     /* 1 while the endpoint is published under a key */
	uint32_t connected;      /* 1 while it is connected to a receiver, which may be gone */
};

/* As CAP_STREAM_WAIT, and tells which buffer was filled. */
#define CAP_STREAM_WAIT_INFO _IOR(CAP_STREAM_TYPE, 0x10, struct cap_stream_message)
/*
 * Argument ignored: takes the key back, disconnects, and drops all buffers and messages: the endpoint is as after boot. When it
 * returns nobody writes into the buffers any more.
 */
#define CAP_STREAM_RESET _IO(CAP_STREAM_TYPE, 0x11)
#define CAP_STREAM_STATS _IOR(CAP_STREAM_TYPE, 0x12, struct cap_stream_stats)

/*
 * Files.
 */
#define CAP_FILE_TYPE 0xE2

/* Who may write, argument of CAP_FILE_SET_MODE. */
#define CAP_FILE_READ_WRITE 0 /* the default */
#define CAP_FILE_READ_ONLY 1

/* Pointer, by value: the first byte to publish. */
#define CAP_FILE_SET_CAP _IOW(CAP_FILE_TYPE, 0x00, int)
/* int, by value: how many bytes. EINVAL if <= 0. */
#define CAP_FILE_SET_SIZE _IOW(CAP_FILE_TYPE, 0x01, int)
/*
 * char[CAP_KEY_LEN]: publish the range under the key. EADDRINUSE if somebody else has the key, EFAULT unless the
 * range is memory of the caller.
 */
#define CAP_FILE_ADV _IOW(CAP_FILE_TYPE, 0x02, int)
/* char[CAP_KEY_LEN]: attach to a published range; waits as CAP_STREAM_PRB does. */
#define CAP_FILE_PRB _IOW(CAP_FILE_TYPE, 0x03, int)
/* int, by value: CAP_FILE_READ_WRITE or CAP_FILE_READ_ONLY, for the next CAP_FILE_ADV. */
#define CAP_FILE_SET_MODE _IOW(CAP_FILE_TYPE, 0x04, int)

/* Counters of a CAP_File node since boot. */
struct cap_file_stats {
	uint64_t reads;         /* read() calls that returned data */
	uint64_t read_bytes;    /* bytes of those */
	uint64_t writes;        /* write() calls that stored data */
	uint64_t written_bytes; /* bytes of those */
	uint64_t size;          /* bytes of the range it is attached to, 0 when it is not */
	uint32_t read_only;     /* 1 when that range can only be read */
	uint32_t published;     /* 1 while it publishes a range */
};

/*
 * Argument ignored: takes the published range back. When it returns no access of anybody is under way, and all later ones fail with
 * ESTALE. ENOENT when nothing is published.
 */
#define CAP_FILE_REVOKE _IO(CAP_FILE_TYPE, 0x10)
#define CAP_FILE_STATS _IOR(CAP_FILE_TYPE, 0x11, struct cap_file_stats)

/*
 * Bells. write() of a uint64_t adds it to the count of the bell that this one is connected to, and read() of a uint64_t waits until the count
 * of this one is not 0, tells it and makes it 0: every unit that was added is read once. As with an eventfd, EINVAL for fewer than 8 bytes and
 * for adding the largest number, and a write waits, with O_NONBLOCK EAGAIN, while the sum would not be below it.
 *
 * A write is ENOTCONN before CAP_BELL_PRB and EPIPE when the bell was reset or its cVM ended; then CAP_BELL_PRB may connect to the next one.
 * poll(): readable when read() would not wait, writable when a 1 can be added, POLLHUP when the other bell is gone.
 *
 *	uint64_t count;
 *	int fd = open("/cap/cg1", O_RDWR);
 *	ioctl(fd, CAP_BELL_ADV, "door");
 *	read(fd, &count, sizeof(count));
 *
 * and who rings it:
 *
 *	uint64_t one = 1;
 *	int fd = open("/cap/cg2", O_RDWR);
 *	ioctl(fd, CAP_BELL_PRB, "door");
 *	write(fd, &one, sizeof(one));
 */
#define CAP_BELL_TYPE 0xE6

/* char[CAP_KEY_LEN]: publish this bell under the key. EADDRINUSE if another one has it. Keys of bells are apart from those of streams. */
#define CAP_BELL_ADV _IOW(CAP_BELL_TYPE, 0x01, int)
/* char[CAP_KEY_LEN]: connect to the bell of the key; waits as CAP_STREAM_PRB does. */
#define CAP_BELL_PRB _IOW(CAP_BELL_TYPE, 0x02, int)

/* Counters of a bell since its last reset. */
struct cap_bell_stats {
	uint64_t count;         /* units that wait to be read now */
	uint64_t rings;         /* times units were added to this bell */
	uint64_t added;         /* units of those, modulo 2^64 */
	uint64_t takes;         /* reads that returned units */
	uint64_t taken;         /* units of those, modulo 2^64 */
	uint64_t sent_rings;    /* times this bell added units to another one */
	uint64_t no_room;       /* times units did not fit here */
	uint64_t notifications; /* interrupts that callers asked for */
	uint64_t sleeps;        /* times a task of this cVM slept at this bell */
	uint32_t advertised;    /* 1 while the bell is published under a key */
	uint32_t connected;     /* 1 while it is connected to another one, which may be gone */
};

/* Argument ignored: takes the key back, disconnects, sets the count to 0, and ends all waits with ECANCELED. */
#define CAP_BELL_RESET _IO(CAP_BELL_TYPE, 0x10)
#define CAP_BELL_STATS _IOR(CAP_BELL_TYPE, 0x11, struct cap_bell_stats)

#endif
