// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * The network interface of a cVM, in one of these roles:
 *
 *     net serve-tcp PORT CONNECTIONS        sends back what it gets, connection after connection
 *     net serve-udp PORT                    sends back each datagram, until an empty one comes
 *     net echo-tcp ADDRESS PORT BYTES       sends so much, and compares what comes back meanwhile
 *     net echo-udp ADDRESS PORT DATAGRAMS   sends one after the other, and compares what comes back; then an empty one
 *     net show                              tells what the interface is set up with
 *     net wait                              waits for the link to go down
 *
 * ADDRESS may be `gateway`.
 */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define PIECE 65536
/* Until the other side is there. */
#define TRIES (500 * SLOWNESS)
/* A datagram may get lost, and is sent again then. */
#define LIMIT_MS (1000 * SLOWNESS)

/* The byte at a place of what is sent. */
static unsigned char byte_at(uint64_t place)
{
	return (unsigned char)((place * 2654435761u) >> 13);
}

static in_addr_t gateway(void)
{
	char line[256], name[17];
	unsigned int to, via, found = 0;
	FILE *routes = fopen("/proc/net/route", "r");

	while (routes && fgets(line, sizeof(line), routes))
		if (sscanf(line, "%16s %x %x", name, &to, &via) == 3 && to == 0 && via)
			found = via;
	if (routes)
		fclose(routes);
	return found;
}

static struct sockaddr_in place(const char *address, const char *port)
{
	struct sockaddr_in place = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };

	place.sin_addr.s_addr = strcmp(address, "gateway") ? inet_addr(address) : gateway();
	return place;
}

static int listening(int type, const char *port)
{
	struct sockaddr_in here = place("0.0.0.0", port);
	int on = 1, fd = socket(AF_INET, type, 0);

	REQUIRE(fd >= 0, "socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	REQUIRE(bind(fd, (struct sockaddr *)&here, sizeof(here)) == 0, "bind");
	return fd;
}

static int write_all(int fd, const unsigned char *from, size_t len)
{
	while (len) {
		ssize_t n = send(fd, from, len, MSG_NOSIGNAL);

		if (n <= 0)
			return -1;
		from += n;
		len -= (size_t)n;
	}
	return 0;
}

static void serve_tcp(const char *port, int connections)
{
	static unsigned char piece[PIECE];
	int fd = listening(SOCK_STREAM, port);

	REQUIRE(listen(fd, 64) == 0, "listen");
	printf("listening\n");
	for (int i = 0; i < connections; i++) {
		int one = accept(fd, NULL, NULL);
		ssize_t n;

		REQUIRE(one >= 0, "accept");
		while ((n = recv(one, piece, sizeof(piece), 0)) > 0)
			if (write_all(one, piece, (size_t)n))
				break;
		check(n == 0, "everything was sent back", "%s", strerror(errno));
		close(one);
	}
	close(fd);
}

static void serve_udp(const char *port)
{
	static unsigned char piece[PIECE];
	int fd = listening(SOCK_DGRAM, port);

	printf("listening\n");
	for (;;) {
		struct sockaddr_in from;
		socklen_t len = sizeof(from);
		ssize_t n = recvfrom(fd, piece, sizeof(piece), 0, (struct sockaddr *)&from, &len);

		REQUIRE(n >= 0, "recvfrom");
		if (n == 0)
			break;
		REQUIRE(sendto(fd, piece, (size_t)n, 0, (struct sockaddr *)&from, len) == n, "sendto");
	}
	reached("every datagram was sent back");
	close(fd);
}

static int connection(struct sockaddr_in to)
{
	struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };

	for (int i = 0; i < TRIES; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
			return fd;
		close(fd);
		/* Nothing tells when somebody else will listen. */
		nanosleep(&pause, NULL);
	}
	return -1;
}

struct sending {
	int fd;
	uint64_t bytes;
	int failed;
};

static void *send_all(void *argument)
{
	static unsigned char piece[PIECE];
	struct sending *sending = argument;
	uint64_t done = 0;

	while (done < sending->bytes && !sending->failed) {
		size_t len = sending->bytes - done < PIECE ? (size_t)(sending->bytes - done) : PIECE;

		for (size_t i = 0; i < len; i++)
			piece[i] = byte_at(done + i);
		sending->failed = write_all(sending->fd, piece, len) ? errno : 0;
		done += len;
	}
	return NULL;
}

static void echo_tcp(struct sockaddr_in to, uint64_t bytes)
{
	static unsigned char piece[PIECE];
	struct sending sending = { .fd = connection(to), .bytes = bytes };
	uint64_t done = 0, wrong = 0;
	pthread_t thread;
	ssize_t n;

	REQUIRE(sending.fd >= 0, "connect");
	REQUIRE(pthread_create(&thread, NULL, send_all, &sending) == 0, "pthread_create");
	/* Half a connection is not tried: passt of 2023 stops sending to who has closed its own half. */
	while (done < bytes && (n = recv(sending.fd, piece, sizeof(piece), 0)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			wrong += piece[i] != byte_at(done + (uint64_t)i);
		done += (uint64_t)n;
	}
	pthread_join(thread, NULL);
	shutdown(sending.fd, SHUT_WR);
	check(recv(sending.fd, piece, sizeof(piece), 0) == 0, "the connection ends well", "%s", strerror(errno));
	check(!sending.failed, "everything was sent", "%s", strerror(sending.failed));
	check(done == bytes, "everything came back", "%llu of %llu bytes", (unsigned long long)done,
	      (unsigned long long)bytes);
	check(!wrong, "what came back is what was sent", "%llu bytes differ", (unsigned long long)wrong);
	close(sending.fd);
}

static void echo_udp(struct sockaddr_in to, int datagrams)
{
	static unsigned char sent[1400], got[PIECE];
	int fd = socket(AF_INET, SOCK_DGRAM, 0), again = 0;

	REQUIRE(fd >= 0, "socket");
	REQUIRE(connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0, "connect");
	for (int i = 0; i < datagrams; i++) {
		size_t len = 1 + (size_t)i * 37 % sizeof(sent);
		struct pollfd ready = { .fd = fd, .events = POLLIN };
		ssize_t n = -1;

		for (size_t at = 0; at < len; at++)
			sent[at] = byte_at((uint64_t)i * 1400 + at);
		while (n != (ssize_t)len || memcmp(sent, got, len)) {
			/* It was not sent, it is late, or another one was. */
			REQUIRE(again++ < datagrams + TRIES, "answers");
			if (send(fd, sent, len, 0) == (ssize_t)len && poll(&ready, 1, LIMIT_MS / 10) == 1)
				n = recv(fd, got, sizeof(got), 0);
		}
	}
	EXPECT_OK(send(fd, sent, 0, 0), "the end is sent");
	reached("every datagram came back");
	close(fd);
}

static void show(void)
{
	struct ifreq request = { .ifr_name = "eth0" };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct in_addr via = { .s_addr = gateway() };
	char text[256];
	FILE *resolver;

	if (ioctl(fd, SIOCGIFADDR, &request) == 0)
		printf("address %s\n", inet_ntoa(((struct sockaddr_in *)&request.ifr_addr)->sin_addr));
	if (ioctl(fd, SIOCGIFNETMASK, &request) == 0)
		printf("mask %s\n", inet_ntoa(((struct sockaddr_in *)&request.ifr_addr)->sin_addr));
	if (ioctl(fd, SIOCGIFFLAGS, &request) == 0)
		printf("flags%s%s\n", request.ifr_flags & IFF_UP ? " up" : "",
		       request.ifr_flags & IFF_RUNNING ? " running" : "");
	if (ioctl(fd, SIOCGIFMTU, &request) == 0)
		printf("mtu %d\n", request.ifr_mtu);
	if (ioctl(fd, SIOCGIFHWADDR, &request) == 0) {
		printf("mac");
		for (int i = 0; i < 6; i++)
			printf("%c%02x", i ? ':' : ' ', (unsigned char)request.ifr_hwaddr.sa_data[i]);
		printf("\n");
	}
	if (via.s_addr)
		printf("gateway %s\n", inet_ntoa(via));
	resolver = fopen("/etc/resolv.conf", "r");
	while (resolver && fgets(text, sizeof(text), resolver))
		printf("%s", text);
	close(fd);
}

/* Whether there is a carrier, as the kernel says. */
static int carrier(void)
{
	char text[8] = "";
	FILE *file = fopen("/sys/class/net/eth0/carrier", "r");
	int up = file && fgets(text, sizeof(text), file) && text[0] == '1';

	if (file)
		fclose(file);
	return up;
}

/* The kernel tells of it on this kind of socket: that is what is waited for. */
static void wait_down(void)
{
	struct {
		unsigned short family, pad;
		unsigned int pid, groups;
	} link = { .family = AF_NETLINK, .groups = 1 };
	static char message[8192];
	int fd = socket(AF_NETLINK, SOCK_RAW, 0);

	REQUIRE(fd >= 0 && bind(fd, (struct sockaddr *)&link, sizeof(link)) == 0, "netlink");
	REQUIRE(carrier(), "carrier");
	printf("waiting\n");
	while (carrier())
		REQUIRE(recv(fd, message, sizeof(message), 0) > 0, "recv");
	reached("the link went down");
}

int main(int argc, char **argv)
{
	const char *role = argc > 1 ? argv[1] : "";

	checks_begin();
	if (argc == 4 && !strcmp(role, "serve-tcp"))
		serve_tcp(argv[2], atoi(argv[3]));
	else if (argc == 3 && !strcmp(role, "serve-udp"))
		serve_udp(argv[2]);
	else if (argc == 5 && !strcmp(role, "echo-tcp"))
		echo_tcp(place(argv[2], argv[3]), strtoull(argv[4], NULL, 10));
	else if (argc == 5 && !strcmp(role, "echo-udp"))
		echo_udp(place(argv[2], argv[3]), atoi(argv[4]));
	else if (argc == 2 && !strcmp(role, "show"))
		show();
	else if (argc == 2 && !strcmp(role, "wait"))
		wait_down();
	else
		check(0, "arguments", "there is no role '%s' with %d arguments", role, argc - 2);
	return checks_end();
}
