// SPDX-License-Identifier: GPL-2.0-only
/*
 * poll_wait(), which is an inline function, for chrdev.rs.
 */
#include <linux/poll.h>

void capstream_poll_wait(struct file *file, struct wait_queue_head *queue, poll_table *table);

void capstream_poll_wait(struct file *file, struct wait_queue_head *queue, poll_table *table)
{
	poll_wait(file, queue, table);
}
